"""Where a training computes, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from dits.common.errors import require


def training_device(name: str) -> torch.device:
    """The device for a name: auto (the GPU if there is one), cpu or cuda.

    Raises:
        InputError: there is no such device.
    """
    require(name in ("auto", "cpu", "cuda"), f"There is no device '{name}': choose auto, cpu or cuda.")
    cuda = torch.cuda.is_available()
    require(name != "cuda" or cuda, "There is no CUDA device here: train with --device cpu.")
    return torch.device(name if name != "auto" else "cuda" if cuda else "cpu")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which matrix products are computed in `precision`: fp32, or bf16."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)

"""Parts of a computation that stay in float32 when the rest runs in a lower precision under `torch.autocast`."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, otherwise unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def full_precision(like: Tensor) -> AbstractContextManager[Any]:
    """A context without autocast on the device of a tensor: matrix products are as precise as their inputs."""
    return torch.autocast(like.device.type, enabled=False)

"""A smaller variant of an encoder: matrices in eight bits, one scale an output channel, everything else in float16."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dits.common.errors import EncoderError
from dits.common.files import atomic_path, make_folder, storage_errors
from dits.encoders.towers import WEIGHTS

MARK = "dits-int8"  # in the file's metadata

_SCALE = ".int8_scale"


def quantize_folder(folder: Path, out: Path) -> int:
    """Writes the encoder of `folder`, in OpenCLIP's format, to `out` with its matrices in int8; returns the bytes.

    `load_encoder("local-dir:OUT")` reads it; OpenCLIP itself does not, since it knows no such weights.

    Raises:
        EncoderError: the folder holds no encoder, or one that is quantized already.
        StorageError: `out` cannot be written.
    """
    try:
        if is_quantized(folder / WEIGHTS):
            raise EncoderError(f"{folder} is in int8 already.")
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{folder / WEIGHTS} is missing or damaged: name a folder with an encoder.") from error
    make_folder(out)
    with storage_errors(out):
        for path in folder.iterdir():
            if path.name not in (WEIGHTS, "training.json", "NOTICE.md") and path.is_file():
                shutil.copyfile(path, out / path.name)
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(quantize(weights), temporary, metadata={"format": MARK})
    return (out / WEIGHTS).stat().st_size


def quantize(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every float tensor of two or more dimensions as int8, symmetric around zero, with a scale for each first index.

    The largest magnitude of an output channel becomes 127, so no entry is off by more than half a step: 1/254 of it.
    """
    result: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim < 2 or not value.is_floating_point():
            result[name] = value
            continue
        flat = value.float().flatten(1)
        scale = (flat.abs().amax(dim=1) / 127).clamp(min=1e-12)
        result[name] = (flat / scale[:, None]).round().to(torch.int8).view(value.shape)
        result[name + _SCALE] = scale
    return result


def dequantize(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32 that `quantize` stored, under their own names."""
    scales = {name.removesuffix(_SCALE): value for name, value in weights.items() if name.endswith(_SCALE)}
    whole = {name: value for name, value in weights.items() if not name.endswith(_SCALE)}
    return {
        name: value.float() * scales[name].view(-1, *[1] * (value.ndim - 1)) if name in scales else value
        for name, value in whole.items()
    }


def is_quantized(path: Path) -> bool:
    """Whether a safetensors file holds weights in int8."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("format") == MARK

"""Int8 quantization of an encoder: matrices as int8, one scale per output channel; other weights are unchanged."""

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
    """Write the encoder in `folder` (OpenCLIP's format) to `out` with int8 matrices; return the file size in bytes.

    `load_encoder("local-dir:OUT")` reads the result. OpenCLIP itself does not support int8 weights.

    Raises:
        EncoderError: the folder contains no encoder, or an encoder that is already quantized.
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
    """Quantize float tensors with two or more dimensions to int8, symmetric around zero, with one scale per row.

    The largest magnitude of a row (output channel) becomes 127, so the error of an entry is at most 1/254 of it.
    """
    quantized: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim < 2 or not value.is_floating_point():
            quantized[name] = value
            continue
        flat = value.float().flatten(1)
        scale = (flat.abs().amax(dim=1) / 127).clamp(min=1e-12)
        quantized[name] = (flat / scale[:, None]).round().to(torch.int8).view(value.shape)
        quantized[name + _SCALE] = scale
    return quantized


def dequantize(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `quantize`: the weights under their own names, quantized ones in float32."""
    scales = {name.removesuffix(_SCALE): value for name, value in weights.items() if name.endswith(_SCALE)}
    values = {name: value for name, value in weights.items() if not name.endswith(_SCALE)}
    return {
        name: value.float() * scales[name].view(-1, *[1] * (value.ndim - 1)) if name in scales else value
        for name, value in values.items()
    }


def is_quantized(path: Path) -> bool:
    """Whether a safetensors file contains int8 weights."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("format") == MARK

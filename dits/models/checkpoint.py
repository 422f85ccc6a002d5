"""Checkpoints: safetensors files with a header that describes the weights and their training data.

Loading refuses weights of another encoder, method or dimension. It compares the id of the encoder and its embedding of
one fixed sentence, which detects encoders with the same name and shapes but other weights or another activation.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dits.common.errors import CheckpointError, InputError, require
from dits.common.files import ASSETS, atomic_path, cache_root, parse_json, sha256_of
from dits.encoders.openclip import OpenClipEncoder
from dits.models.retrieval import METHODS, ModelConfig, RetrievalModel

FORMAT = 2

_FINGERPRINT = "encoder.fingerprint"
_HEADER = "dits"


@dataclass(frozen=True)
class CheckpointHeader:
    """The description of the weights in a checkpoint.

    Attributes:
        encoder: id of the encoder whose embeddings the weights were trained on.
        quick_gelu: whether that encoder uses QuickGELU, which the shapes of its weights do not show.
        dim: width of its embeddings.
        config: the model's configuration (`ModelConfig.as_dict`).
        data: the corpus and split, and a checksum of its captions.
        training: the training configuration, with the seed.
        metric: validation metrics of these weights.
    """

    encoder: str
    quick_gelu: bool
    dim: int
    config: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any]
    metric: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the model, ready for inference, the header, and the checksum of the file."""

    model: RetrievalModel
    header: CheckpointHeader
    sha256: str


def bundled_weights(method: str, encoder_id: str) -> Path:
    """The path of the weights of a method for an encoder that the repository ships."""
    return ASSETS / "weights" / _folder_name(encoder_id) / f"{method}.safetensors"


def prepared_weights(method: str, encoder_id: str) -> Path:
    """The path in the cache folder of the weights that `dits.training.prepare` trains for an encoder."""
    return cache_root() / "weights" / _folder_name(encoder_id) / f"{method}.safetensors"


def find_weights(method: str, encoder_id: str, folder: Path | None = None) -> Path:
    """The path of a method's weights: in `folder`, else the shipped file if there is one, else the prepared file."""
    if folder is not None:
        return folder / f"{method}.safetensors"
    shipped = bundled_weights(method, encoder_id)
    return shipped if shipped.is_file() else prepared_weights(method, encoder_id)


def save_checkpoint(
    path: Path, model: RetrievalModel, header: CheckpointHeader, fingerprint: Tensor, half: bool = False
) -> None:
    """Write a model's weights in one atomic step, in float16 if `half` is set.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    tensors[_FINGERPRINT] = fingerprint.float().contiguous()
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps({"format": FORMAT, **asdict(header)})})


def load_checkpoint(path: Path, encoder: OpenClipEncoder, method: str | None = None) -> Checkpoint:
    """Load a checkpoint for use with `encoder`.

    Raises:
        CheckpointError: the file is missing or damaged, or the weights are for another encoder, method or dimension.
    """
    header, tensors = _read(path)
    actual = header.config.get("method") if isinstance(header.config, dict) else None
    if method is not None and actual != method:
        raise CheckpointError(f"{path} holds weights of the method '{actual}', not '{method}': name another file.")
    _check_encoder(path, header, tensors.pop(_FINGERPRINT, torch.empty(0)), encoder)
    try:
        config = ModelConfig.from_dict(header.config)
        widths = {config.pooling.dim} | ({config.network.dim} if "network" in METHODS[config.method].parts else set())
        if widths != {encoder.dim}:
            raise InputError(f"its width is not {encoder.dim}")
        _check_size(config, tensors)
        model = RetrievalModel(config)
        model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (RuntimeError, ValueError, TypeError, OverflowError, InputError) as error:
        raise CheckpointError(f"{path} is damaged: its weights do not fit its own configuration.") from error
    return Checkpoint(model.eval(), header, sha256_of(path))


def _check_size(config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Raises InputError if configuration and weights differ in size, before a large model could fill the memory."""
    sections = (getattr(config, name) for name in METHODS[config.method].parts)
    require(all(getattr(section, "depth", 0) <= len(tensors) for section in sections), "it has too few layers")
    with torch.device("meta"):
        expected = {name: value.shape for name, value in RetrievalModel(config).state_dict().items()}
    require(expected == {name: value.shape for name, value in tensors.items()}, "they are of other shapes")


def _folder_name(encoder_id: str) -> str:
    return encoder_id.replace("/", "_")


def _read(path: Path) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"The weights are missing: there is no file {path}. Restore it, or train new ones.")
    try:
        with safe_open(path, framework="pt") as file:
            values = parse_json((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        version = values.pop("format")
        if version > FORMAT:
            raise CheckpointError(f"{path} was written by a newer version of this program: update it.")
        header = CheckpointHeader(**values)
        return _from_first_format(header, tensors) if version == 1 else (header, tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"The weights in {path} are damaged or were not written by this program: restore the file, "
            "or train new ones."
        ) from error


def _from_first_format(
    header: CheckpointHeader, tensors: dict[str, Tensor]
) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Renames `sampler` to `alignment` and `dropout` to `block_dropout`: the names of format 1 to those of format 2."""
    config = {name: dict(section) if isinstance(section, dict) else section for name, section in header.config.items()}
    config["network"]["block_dropout"] = config["network"].pop("dropout")
    renamed = {name.replace("sampler.", "alignment.", 1): value for name, value in tensors.items()}
    return replace(header, config=config), renamed


def _check_encoder(path: Path, header: CheckpointHeader, fingerprint: Tensor, encoder: OpenClipEncoder) -> None:
    expected = encoder.fingerprint()
    same = (
        (header.encoder, header.dim, header.quick_gelu) == (encoder.id, encoder.dim, encoder.quick_gelu)
        and fingerprint.shape == expected.shape
        and float(F.cosine_similarity(fingerprint, expected, dim=0)) > 0.999
    )
    if not same:
        raise CheckpointError(
            f"The weights in {path} were trained for the encoder {header.encoder} and cannot be used with "
            f"{encoder.id}: choose that encoder, or train weights for this one."
        )

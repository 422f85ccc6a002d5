"""Loaded methods: a model with its weights, and the gallery of videos prepared for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dits.common.errors import CheckpointError
from dits.encoders.openclip import OpenClipEncoder
from dits.models.checkpoint import find_weights, load_checkpoint
from dits.models.retrieval import SEARCH_METHODS, ModelConfig, RetrievalModel
from dits.scoring.gallery import Derived, Gallery, build_gallery


@dataclass(frozen=True)
class LoadedMethod:
    """A method ready for search: its model, the gallery prepared for it, and the checksum of its weights, if any."""

    model: RetrievalModel
    gallery: Gallery
    weights_sha256: str | None


DerivedLookup = Callable[[str, RetrievalModel], Derived | None]
"""Returns the arrays of `dits.scoring.gallery.derive` cached under a `weights_name`, or None to compute them."""


def load_method(
    method: str,
    encoder: OpenClipEncoder,
    frames: Tensor,
    weights: Path | None = None,
    derive: DerivedLookup | None = None,
) -> LoadedMethod:
    """Load a method, and prepare videos (V, F, d) for it, on the encoder's device.

    Raises:
        InputError: there is no such method.
        CheckpointError: the weights are missing, damaged, or made for another encoder.
    """
    return build_method(method, *load_model(method, encoder, weights), frames, derive)


def load_model(method: str, encoder: OpenClipEncoder, weights: Path | None = None) -> tuple[RetrievalModel, str | None]:
    """Load the model of a method on the encoder's device, with the checksum of its weights (None for mean pooling).

    Raises:
        CheckpointError: as `load_method`.
    """
    path = weights_path(method, encoder.id, weights)
    checkpoint = load_checkpoint(path, encoder, method) if path else None
    model = checkpoint.model if checkpoint else RetrievalModel(ModelConfig(method=method)).eval()
    return model.to(encoder.device), checkpoint.sha256 if checkpoint else None


def weights_name(method: str, sha256: str | None) -> str:
    """The name under which the arrays derived with a method's weights are cached, see `DerivedLookup`."""
    return f"{method}-{(sha256 or 'none')[:16]}"


def build_method(
    method: str, model: RetrievalModel, sha256: str | None, frames: Tensor, derive: DerivedLookup | None
) -> LoadedMethod:
    """Prepare videos (V, F, d) for a loaded model; `sha256` is the checksum of its weights."""
    derived = derive(weights_name(method, sha256), model) if derive else None
    return LoadedMethod(model, build_gallery(model, frames, derived), sha256)


def weights_path(method: str, encoder_id: str, weights: Path | None = None) -> Path | None:
    """The path of a method's weights, or None for mean pooling. Long computations call this first, to fail early.

    Raises:
        CheckpointError: the weights are missing.
    """
    if method == "mean":
        return None
    path = find_weights(method, encoder_id, weights)
    if path.is_file():
        return path
    if weights is not None:
        raise CheckpointError(f"The weights are missing: there is no file {path}. Name another folder with --weights.")
    if method in SEARCH_METHODS:
        advice = "make them with `python -m dits prepare` and the same --encoder, or name their folder with --weights."
    else:
        advice = f"train them with `python -m dits train {method}`, and name their folder with --weights."
    raise CheckpointError(f"There are no weights of the method '{method}' for the encoder {encoder_id}: {advice}")

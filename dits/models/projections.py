"""The linear maps that end an encoder's towers, and the features of the towers before them.

Training can tune these maps together with a retrieval model (`dits.training.trainer`). The towers stay frozen, so their
features are computed once.
"""

import copy
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dits.common.errors import EncoderError

_TEXT = ("text.proj", "text.text_projection", "text_projection")
_FRAMES = ("visual.head.proj", "visual.proj")


class TowerEncoder(Protocol):
    """What this module needs of an encoder; `dits.encoders.openclip.OpenClipEncoder` has it."""

    id: str
    dim: int
    module: Any

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, d) of N texts."""

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, F, d) of resized and cropped frames (B, F, 3, H, W), uint8."""


AnyEncoder = TypeVar("AnyEncoder", bound=TowerEncoder)


class Projections(nn.Module):
    """The maps from the features of the two towers to the joint space.

    Attributes:
        text: from the features of texts (N, d_t) to embeddings (N, d).
        frames: from the features of frames (V, F, d_i) to embeddings (V, F, d).
    """

    def __init__(self, text: nn.Linear, frames: nn.Linear) -> None:
        super().__init__()
        self.text = text
        self.frames = frames

    @classmethod
    def of(cls, encoder: TowerEncoder) -> "Projections":
        """A copy of the projections of an encoder, on the CPU, in float32.

        Raises:
            EncoderError: a tower of the encoder does not end with one linear map.
        """
        text, frames = (_get(encoder.module, path) for path in _paths(encoder))
        return cls(_as_linear(text), _as_linear(frames))

    def forward(self, texts: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the features of texts and of frames."""
        return self.text(texts), self.frames(frames)

    @torch.no_grad()
    def write_to(self, encoder: TowerEncoder) -> None:
        """Replaces the projections of the encoder, in place.

        Raises:
            EncoderError: a tower of the encoder does not end with one linear map.
        """
        for layer, path in zip((self.text, self.frames), _paths(encoder), strict=True):
            target = _get(encoder.module, path)
            if isinstance(target, nn.Linear):
                target.load_state_dict(layer.state_dict())
            else:
                target.copy_(layer.weight.T)


def text_features(encoder: TowerEncoder, texts: Sequence[str]) -> Tensor:
    """Features (N, d_t) of texts, from which `Projections.text` makes the encoder's embeddings.

    Raises:
        EncoderError: a tower of the encoder does not end with one linear map.
    """
    return without_projections(encoder).encode_text(texts).clone()  # a clone can be trained on: it may need gradients


def frame_features(encoder: TowerEncoder, pixels: Tensor) -> Tensor:
    """Features (B, F, d_i) of resized and cropped frames (B, F, 3, H, W), uint8, for `Projections.frames`.

    Raises:
        EncoderError: a tower of the encoder does not end with one linear map.
    """
    return without_projections(encoder).encode_pixels(pixels).clone()


def without_projections(encoder: AnyEncoder) -> AnyEncoder:
    """The encoder without its projections, as a copy with the same towers: its embeddings are the features.

    Its `id` differs from that of the encoder, because it names cached files. Its `dim` is the width of the features of
    frames.

    Raises:
        EncoderError: a tower of the encoder does not end with one linear map.
    """
    towers = copy.copy(encoder)
    towers.id, towers.dim = f"{encoder.id}-towers", Projections.of(encoder).frames.in_features
    for path in _paths(encoder):
        towers.module = _without(towers.module, path.split("."))
    return towers


def _paths(encoder: TowerEncoder) -> tuple[str, str]:
    """The names of the projections of texts and of frames in the OpenCLIP model."""
    import open_clip

    found = [path for paths in (_TEXT, _FRAMES) for path in paths if _is_linear(_get(encoder.module, path))]
    if not isinstance(encoder.module, open_clip.CLIP | open_clip.CustomTextCLIP) or len(found) != 2:
        raise EncoderError(
            f"The projections of the encoder {encoder.id} cannot be tuned: each of its towers must end with one linear "
            "map to the joint space. Choose another encoder, or leave its projections as they are."
        )
    return found[0], found[1]


def _get(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def _is_linear(value: Any) -> bool:
    return isinstance(value, nn.Linear) or (isinstance(value, nn.Parameter) and value.ndim == 2)


def _as_linear(value: nn.Linear | nn.Parameter) -> nn.Linear:
    """A copy of a linear layer, or of a matrix (d_in, d_out) that multiplies from the right."""
    if isinstance(value, nn.Linear):
        return copy.deepcopy(value).cpu().float()
    layer = nn.Linear(value.shape[0], value.shape[1], bias=False)
    with torch.no_grad():
        layer.weight.copy_(value.T)
    return layer


def _without(module: nn.Module, path: list[str]) -> nn.Module:
    """A copy of a module that shares all weights, without the projection at `path`."""
    name, *rest = path
    copied = copy.copy(module)
    copied._parameters, copied._modules = dict(module._parameters), dict(module._modules)
    if rest:
        copied._modules[name] = _without(getattr(module, name), rest)
    elif name in copied._parameters:  # OpenCLIP projects by such a matrix only if there is one
        copied._parameters[name] = None
    else:
        copied._modules[name] = nn.Identity() if name == "proj" else None
    return copied

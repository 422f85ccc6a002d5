"""Retrieval models: mean pooling, X-Pool and DITS, as one module with a method."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.alignment import AlignmentConfig, DitsSampler, SamplerConfig
from dits.errors import InputError
from dits.losses import symmetric_cross_entropy
from dits.pooling import PoolingConfig, XPool, mean_pool, xpool_similarity
from dits.scoring import ExactScorer

METHODS = ("mean", "xpool", "dits")

SEARCH_METHODS = ("mean", "xpool", "dits")
"""The methods that search ranks by: those that the app and `load_engine` load."""

_MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class ModelConfig:
    """What a retrieval model is made of. `mean` uses none of the parts, `xpool` the pooling, `dits` all."""

    method: str = "dits"
    pooling: PoolingConfig = field(default_factory=PoolingConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    network: AlignmentConfig = field(default_factory=AlignmentConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"There is no method '{self.method}': choose one of {', '.join(METHODS)}.")

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON values; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The configuration that `as_dict` wrote.

        Raises:
            InputError: an entry is unknown or of the wrong kind.
        """
        try:
            return cls(
                method=values["method"],
                pooling=PoolingConfig(**values["pooling"]),
                sampler=SamplerConfig(**values["sampler"]),
                network=AlignmentConfig(**values["network"]),
            )
        except (KeyError, TypeError, ArithmeticError) as error:
            raise InputError(f"The model configuration cannot be read: {error}.") from error


class Gallery(Protocol):
    """Videos prepared for scoring: any number of texts can be ranked against them.

    Scoring runs where the model lies; texts may come from the CPU, and results return to it.
    """

    def scores(self, texts: Tensor) -> Tensor:
        """Cosines (T, V) of texts (T, d), as the encoder gives them, and the gallery's videos."""

    def frame_weights(self, text: Tensor) -> Tensor:
        """How much each frame counts in each video for one text (d,): (V, F), summing to 1 over F."""

    def best_frames(self, text: Tensor) -> Tensor:
        """The frame (V,) of each video that one text (d,) matches best."""


class RetrievalModel(nn.Module):
    """Scores texts against videos, from an encoder's embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor(_MAX_LOGIT_SCALE))
        self.pooling = XPool(config.pooling) if config.method != "mean" else None
        self.sampler = DitsSampler(config.sampler, config.network) if config.method == "dits" else None

    def align(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The embeddings (T, d) that stand for the texts (T, d) in the cosine: v_0 under DITS."""
        return texts if self.sampler is None else self.sampler.sample(texts, generator)

    def trajectory(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The sampler's points (T' + 1, T, d) for texts (T, d), v_{T'} first; without a sampler the texts alone."""
        return texts[None] if self.sampler is None else self.sampler.trajectory(texts, generator)

    def similarity(self, texts: Tensor, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Cosines (T, V) of texts (T, d) and videos' frames (V, F, d), with gradients: what training uses."""
        aligned = self.align(texts, generator)
        if self.pooling is None:
            return F.normalize(aligned, dim=-1) @ mean_pool(frames).T
        return xpool_similarity(self.pooling, texts, aligned, frames)

    def loss(self, texts: Tensor, frames: Tensor, ignored: Tensor | None = None) -> Tensor:
        """The training loss (scalar) of a batch of pairs: texts (B, d) and their videos' frames (B, F, d).

        `ignored` (B, B) marks pairs of a text and a video that are no negatives.
        """
        return symmetric_cross_entropy(self.similarity(texts, frames), self.logit_scale, ignored)

    def gallery(self, frames: Tensor) -> Gallery:
        """The videos (V, F, d) prepared for exact scoring without gradients, on the model's device."""
        frames = frames.to(self.logit_scale.device)
        return _MeanGallery(frames) if self.pooling is None else _XPoolGallery(self, frames)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the temperature factor at 100 or below, as CLIP and X-Pool's code do."""
        self.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)


class _MeanGallery:
    def __init__(self, frames: Tensor) -> None:
        self._videos = mean_pool(frames)
        self._frames = F.normalize(frames, dim=-1)

    @torch.inference_mode()
    def scores(self, texts: Tensor) -> Tensor:
        return (F.normalize(texts.to(self._videos.device), dim=-1) @ self._videos.T).cpu()

    def frame_weights(self, text: Tensor) -> Tensor:
        return text.new_full(self._frames.shape[:2], 1 / self._frames.shape[1])

    @torch.inference_mode()
    def best_frames(self, text: Tensor) -> Tensor:
        return (self._frames @ text.to(self._frames.device)).argmax(dim=1).cpu()


class _XPoolGallery:
    def __init__(self, model: RetrievalModel, frames: Tensor) -> None:
        assert model.pooling is not None
        self._model = model
        self._device = frames.device
        self._scorer = ExactScorer(model.pooling)
        self._videos = self._scorer.prepare(frames)

    @torch.inference_mode()
    def scores(self, texts: Tensor) -> Tensor:
        texts = texts.to(self._device)
        return self._scorer.scores(texts, self._model.align(texts), self._videos).cpu()

    def frame_weights(self, text: Tensor) -> Tensor:
        return self._scorer.attention(text.to(self._device), self._videos).cpu()

    def best_frames(self, text: Tensor) -> Tensor:
        return self.frame_weights(text).argmax(dim=1)

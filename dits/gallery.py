"""Videos prepared for scoring, whatever the method: mean pooling, X-Pool through the exact scorer, pair by pair."""

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.pooling import mean_pool
from dits.scoring import ExactScorer

if TYPE_CHECKING:
    from dits.model import RetrievalModel

_PAIRS_AT_ONCE = 2048  # a megabyte an embedding of theirs, in float32


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


class MeanGallery:
    """Mean-pooled videos; whatever aligns the text."""

    def __init__(self, model: "RetrievalModel", frames: Tensor) -> None:
        self._model = model
        self._videos = mean_pool(frames)
        self._frames = F.normalize(frames, dim=-1)

    @torch.inference_mode()
    def scores(self, texts: Tensor) -> Tensor:
        """See `Gallery`."""
        aligned = self._model.align(texts.to(self._videos.device))
        return (F.normalize(aligned, dim=-1) @ self._videos.T).cpu()

    def frame_weights(self, text: Tensor) -> Tensor:
        """See `Gallery`: all frames count the same."""
        return text.new_full(self._frames.shape[:2], 1 / self._frames.shape[1])

    @torch.inference_mode()
    def best_frames(self, text: Tensor) -> Tensor:
        """See `Gallery`."""
        return (self._frames @ text.to(self._frames.device)).argmax(dim=1).cpu()


class XPoolGallery:
    """X-Pool's videos, scored exactly without a pooled embedding per pair; whatever aligns the text."""

    def __init__(self, model: "RetrievalModel", frames: Tensor) -> None:
        assert model.pooling is not None
        self._model = model
        self._device = frames.device
        self._by_aligned = model.config.pooling.attend_with == "aligned"
        self._scorer = ExactScorer(model.pooling)
        self._videos = self._scorer.prepare(frames)

    @torch.inference_mode()
    def scores(self, texts: Tensor) -> Tensor:
        """See `Gallery`."""
        texts = texts.to(self._device)
        aligned = self._model.align(texts)
        return self._scorer.scores(aligned if self._by_aligned else texts, aligned, self._videos).cpu()

    @torch.inference_mode()
    def frame_weights(self, text: Tensor) -> Tensor:
        """See `Gallery`."""
        text = text.to(self._device)
        query = self._model.align(text[None])[0] if self._by_aligned else text
        return self._scorer.attention(query, self._videos).cpu()

    def best_frames(self, text: Tensor) -> Tensor:
        """See `Gallery`."""
        return self.frame_weights(text).argmax(dim=1)


class PairwiseGallery:
    """Videos of a method that moves every pair of text and video: scored pair by pair, a block at a time."""

    def __init__(self, model: "RetrievalModel", frames: Tensor) -> None:
        self._model = model
        self._frames = frames

    @torch.inference_mode()
    def scores(self, texts: Tensor) -> Tensor:
        """See `Gallery`. Every block begins at the same seed, where anything is drawn."""
        texts = texts.to(self._frames.device)
        at_once = max(1, _PAIRS_AT_ONCE // min(len(texts), 64))
        blocks = [
            torch.cat([self._model.similarity(rows, videos) for videos in self._frames.split(at_once)], dim=1)
            for rows in texts.split(64)
        ]
        return torch.cat(blocks).cpu()

    @torch.inference_mode()
    def frame_weights(self, text: Tensor) -> Tensor:
        """See `Gallery`."""
        pooling = self._model.pooling
        if pooling is None:
            return text.new_full(self._frames.shape[:2], 1 / self._frames.shape[1])
        return pooling.attention(text[None].to(self._frames.device), self._frames)[0].mean(dim=1).cpu()

    @torch.inference_mode()
    def best_frames(self, text: Tensor) -> Tensor:
        """See `Gallery`."""
        cosines = F.normalize(self._frames, dim=-1) @ text.to(self._frames.device)
        return cosines.argmax(dim=1).cpu() if self._model.pooling is None else self.frame_weights(text).argmax(dim=1)

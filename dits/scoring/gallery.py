"""Galleries: videos prepared for scoring, under mean pooling, X-Pool (with the exact scorer) and pairwise methods."""

import copy
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.models.pooling import mean_pool
from dits.models.retrieval import RetrievalModel
from dits.scoring.exact import BLOCK, ExactScorer, PreparedVideos, Videos, pad_rows, pad_to_multiple_of_four, take_rows
from dits.scoring.ranking import TopVideos, top_k

Derived = Mapping[str, Tensor]
"""Arrays that a gallery computes of its videos, by name, with one row per video. They can be cached."""

_MEANS_PER_STEP = 512  # divides BLOCK
_PAIRS_PER_STEP = 2048  # 4 MiB of float32 embeddings at d = 512


class Gallery(Protocol):
    """Videos prepared for scoring: any number of texts can be ranked against them.

    Scoring runs on the device of the model; texts may be on the CPU, and results are on the CPU. The frames (V, F, d),
    float16 or float32, are only copied to move them to another device. Except under pairwise methods, scores are the
    same to the last bit if the array of videos is cut at multiples of `BLOCK`.
    """

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """The derived arrays of videos (V, F, d)."""

    def select(self, rows: Tensor) -> "Gallery":
        """The gallery of the videos at the given rows."""

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        """Cosines (T, V) of the encoder's texts (T, d) and the videos; pass `aligned` (T, d) to skip `model.align`."""

    def top(self, texts: Tensor, k: int) -> TopVideos:
        """The k best videos of each text (T, d) by `scores`, computed block by block to limit the memory."""

    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        """Weights (rows, F) of the frames for one text (d,) in the videos at `rows`, by default all; they sum to 1."""

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """The best frame (rows,) for one text (d,) in each video at `rows`, by default all; `weights` if known."""


def build_gallery(model: RetrievalModel, frames: Tensor, derived: Derived | None = None) -> Gallery:
    """Prepare videos (V, F, d), float16 or float32, for scoring without gradients, on the model's device.

    Args:
        derived: the result of `derive` for the same videos; by default it is computed.
    """
    device = model.logit_scale.device
    frames = frames.to(device)
    derived = derive(model, frames) if derived is None else derived
    return _gallery_class(model)(model, frames, {name: array.to(device) for name, array in derived.items()})


def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
    """Compute the arrays that `build_gallery` needs of videos (V, F, d), by name, on the model's device.

    They have one row per video and depend on the model's weights. Long arrays can be given in parts.
    """
    return _gallery_class(model).derive(model, frames.to(model.logit_scale.device))


class _MeanGallery:
    """Mean-pooled videos, under any alignment of the text alone."""

    def __init__(self, model: RetrievalModel, frames: Tensor, derived: Derived) -> None:
        self._model, self._frames = model, frames
        self._videos = derived["means"]
        self._rows: Tensor | None = None  # the rows of the frames that belong to the videos; None for all

    def select(self, rows: Tensor) -> "_MeanGallery":
        selected = copy.copy(self)
        selected._videos = take_rows(self._videos, rows.to(self._videos.device))
        selected._rows = self._frame_rows(rows)
        return selected

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """The unit means (V, d)."""
        return {"means": mean_pool(frames)}

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        return torch.cat(list(self._blocks(texts, aligned)), dim=1).cpu()

    def top(self, texts: Tensor, k: int) -> TopVideos:
        return top_k(self._blocks(texts), k).cpu()

    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        """All frames have the same weight."""
        return _equal_weights(self._frames, self._frame_rows(rows))

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        return _nearest_frames(text, self._frames, self._frame_rows(rows))

    def _frame_rows(self, rows: Tensor | None) -> Tensor | None:
        return rows if self._rows is None else self._rows if rows is None else self._rows[rows]

    @torch.inference_mode()
    def _blocks(self, texts: Tensor, aligned: Tensor | None = None) -> Iterator[Tensor]:
        device = self._videos.device
        aligned = self._model.align(texts.to(device)) if aligned is None else aligned.to(device)
        units = pad_to_multiple_of_four(F.normalize(aligned, dim=-1))
        for videos in self._videos.split(BLOCK):
            parts = videos.split(_MEANS_PER_STEP)
            scores = torch.cat([units @ pad_rows(part, _MEANS_PER_STEP).T for part in parts], dim=1)
            yield scores[: len(aligned), : len(videos)]


class _XPoolGallery:
    """Videos under X-Pool and any alignment of the text alone, scored exactly without a pooled embedding per pair."""

    def __init__(self, model: RetrievalModel, frames: Tensor, derived: Derived) -> None:
        assert model.pooling is not None
        self._model = model
        self._attends_with_aligned = model.config.pooling.attend_with == "aligned"
        self._scorer = ExactScorer(model.pooling)
        self._videos: Videos = PreparedVideos(frames, **derived)

    def select(self, rows: Tensor) -> "_XPoolGallery":
        selected = copy.copy(self)
        selected._videos = self._videos.select(rows.to(self._videos.device))
        return selected

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """See `ExactScorer.derive`."""
        assert model.pooling is not None
        return dict(zip(("inverse_deviations", "grams"), ExactScorer(model.pooling).derive(frames), strict=True))

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        return self._scorer.scores(*self._queries(texts, aligned), self._videos).cpu()

    def top(self, texts: Tensor, k: int) -> TopVideos:
        return self._scorer.top(*self._queries(texts), self._videos, k).cpu()

    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        query = self._queries(text[None])[0] if self._attends_with_aligned else text[None].to(self._videos.device)
        return self._scorer.attention(query[0], self._videos, rows).cpu()

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        return (self.frame_weights(text, rows) if weights is None else weights).argmax(dim=1)

    @torch.inference_mode()
    def _queries(self, texts: Tensor, aligned: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The queries of the attention (T, d), and the aligned embeddings (T, d)."""
        texts = texts.to(self._videos.device)
        aligned = self._model.align(texts) if aligned is None else aligned.to(texts.device)
        return aligned if self._attends_with_aligned else texts, aligned


class _PairwiseGallery:
    """Videos under a pairwise method, whose alignment depends on text and video: scored in blocks of pairs."""

    def __init__(self, model: RetrievalModel, frames: Tensor, derived: Derived) -> None:
        self._model, self._frames = model, frames

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """Pairwise galleries have no derived arrays."""
        return {}

    def select(self, rows: Tensor) -> "_PairwiseGallery":
        return _PairwiseGallery(self._model, self._frames[rows.to(self._frames.device)], {})

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        """`aligned` is ignored, because a text alone has no aligned embedding."""
        return torch.cat(list(self._blocks(texts)), dim=1).cpu()

    def top(self, texts: Tensor, k: int) -> TopVideos:
        return top_k(self._blocks(texts), k).cpu()

    @torch.inference_mode()
    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        pooling = self._model.pooling
        if pooling is None:
            return _equal_weights(self._frames, rows)
        text = text[None].to(self._frames.device)
        blocks = _select(self._frames, rows).split(_PAIRS_PER_STEP)
        return torch.cat([pooling.attention(text, block.float())[0].mean(dim=1) for block in blocks]).cpu()

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        if self._model.pooling is None:
            return _nearest_frames(text, self._frames, rows)
        return (self.frame_weights(text, rows) if weights is None else weights).argmax(dim=1)

    @torch.inference_mode()
    def _blocks(self, texts: Tensor) -> Iterator[Tensor]:
        """Blocks of scores (T, n). Noise, if any, starts at the same seed for every block of texts and videos."""
        texts = texts.to(self._frames.device)
        for videos in self._frames.split(max(1, _PAIRS_PER_STEP // min(len(texts), 64))):
            frames = videos.float()
            yield torch.cat([self._model.similarity(block, frames) for block in texts.split(64)])


def _gallery_class(model: RetrievalModel) -> type[_MeanGallery] | type[_XPoolGallery] | type[_PairwiseGallery]:
    if model.alignment.pairwise:
        return _PairwiseGallery
    return _MeanGallery if model.pooling is None else _XPoolGallery


def _select(frames: Tensor, rows: Tensor | None) -> Tensor:
    return frames if rows is None else frames[rows.to(frames.device)]


def _equal_weights(frames: Tensor, rows: Tensor | None) -> Tensor:
    count = frames.shape[1]
    return torch.full((len(frames) if rows is None else len(rows), count), 1 / count)


@torch.inference_mode()
def _nearest_frames(text: Tensor, frames: Tensor, rows: Tensor | None) -> Tensor:
    """The frame of each video that has the highest cosine with the text."""
    text = text.to(frames.device)
    blocks = _select(frames, rows).split(BLOCK)
    return torch.cat([(F.normalize(block.float(), dim=-1) @ text).argmax(dim=1) for block in blocks]).cpu()

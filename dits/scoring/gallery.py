"""Videos prepared for scoring, whatever the method: mean pooling, X-Pool through the exact scorer, pair by pair."""

import copy
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.models.pooling import mean_pool
from dits.models.retrieval import RetrievalModel
from dits.scoring.exact import BLOCK, ChosenVideos, ExactScorer, PreparedVideos, padded, padded_to_four, take_rows
from dits.scoring.ranking import TopVideos, top_of

Derived = Mapping[str, Tensor]
"""Arrays that a gallery keeps of its videos besides their frames, by name, one row a video. They can be kept."""

_MEANS_AT_ONCE = 512  # divides BLOCK
_PAIRS_AT_ONCE = 2048  # a megabyte an embedding of theirs, in float32


class Gallery(Protocol):
    """Videos prepared for scoring: any number of texts can be ranked against them.

    Scoring runs where the model lies; texts may come from the CPU, and results return to it. The frames (V, F, d), of
    float16 or float32, are not copied, but to another device. In an array that is cut at multiples of `BLOCK` each
    video has the score that it has in the whole, to the last bit, but under methods that move every pair.
    """

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """What is computed once of videos (V, F, d)."""

    def select(self, rows: Tensor) -> "Gallery":
        """The videos at some rows."""

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        """Cosines (T, V) of texts (T, d), as the encoder gives them, and the gallery's videos.

        Args:
            aligned: (T, d) what the model's `align` makes of the texts, where that is known.
        """

    def top(self, texts: Tensor, k: int) -> TopVideos:
        """The k best videos of each text (T, d) by `scores`, which are not all held at once."""

    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        """How much each frame counts for one text (d,) in the videos at `rows`, by default in all: (rows, F).

        The weights of a video sum to 1.
        """

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """The frame that one text (d,) matches best in each of the videos at `rows`, by default in all: (rows,).

        Args:
            weights: what `frame_weights` says of these videos, where that is known.
        """


def build_gallery(model: RetrievalModel, frames: Tensor, derived: Derived | None = None) -> Gallery:
    """The videos (V, F, d) of float16 or float32 prepared for scoring without gradients, on the model's device.

    Args:
        derived: what `derive` computed of the same videos; by default it is computed here.
    """
    device = model.logit_scale.device
    frames = frames.to(device)
    derived = derive(model, frames) if derived is None else derived
    return _gallery_of(model)(model, frames, {name: array.to(device) for name, array in derived.items()})


def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
    """What a gallery computes once of videos (V, F, d): arrays of a row a video, by name, on the model's device.

    They belong to the model's weights. With them kept, in a memory map for example, `build_gallery` computes nothing.
    Long arrays can be given in parts.
    """
    return _gallery_of(model).derive(model, frames.to(model.logit_scale.device))


class MeanGallery:
    """Mean-pooled videos; whatever aligns the text."""

    def __init__(self, model: RetrievalModel, frames: Tensor, derived: Derived) -> None:
        self._model = model
        self._frames = frames
        self._videos = derived["means"]
        self._places: Tensor | None = None  # of the videos among the frames, where they are not all

    def select(self, rows: Tensor) -> "MeanGallery":
        """See `Gallery`."""
        chosen = copy.copy(self)
        chosen._videos = take_rows(self._videos, rows.to(self._videos.device))
        chosen._places = self._at(rows)
        return chosen

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """See `Gallery`: the unit means (V, d)."""
        return {"means": mean_pool(frames)}

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        return torch.cat(list(self._blocks(texts, aligned)), dim=1).cpu()

    def top(self, texts: Tensor, k: int) -> TopVideos:
        """See `Gallery`."""
        return top_of(self._blocks(texts), k).cpu()

    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        """See `Gallery`: all frames count the same."""
        return _equal_weights(self._frames, self._at(rows))

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        return _nearest_frames(text, self._frames, self._at(rows))

    def _at(self, rows: Tensor | None) -> Tensor | None:
        """Where the videos at some rows lie among the frames; None for all."""
        return rows if self._places is None else self._places if rows is None else self._places[rows]

    @torch.inference_mode()
    def _blocks(self, texts: Tensor, aligned: Tensor | None = None) -> Iterator[Tensor]:
        device = self._videos.device
        aligned = self._model.align(texts.to(device)) if aligned is None else aligned.to(device)
        units = padded_to_four(F.normalize(aligned, dim=-1))
        for videos in self._videos.split(BLOCK):
            parts = videos.split(_MEANS_AT_ONCE)
            scores = torch.cat([units @ padded(part, _MEANS_AT_ONCE).T for part in parts], dim=1)
            yield scores[: len(aligned), : len(videos)]


class XPoolGallery:
    """X-Pool's videos, scored exactly without a pooled embedding per pair; whatever aligns the text."""

    def __init__(self, model: RetrievalModel, frames: Tensor, derived: Derived) -> None:
        assert model.pooling is not None
        self._model = model
        self._by_aligned = model.config.pooling.attend_with == "aligned"
        self._scorer = ExactScorer(model.pooling)
        self._videos: PreparedVideos | ChosenVideos = PreparedVideos(frames, **derived)

    def select(self, rows: Tensor) -> "XPoolGallery":
        """See `Gallery`."""
        chosen = copy.copy(self)
        chosen._videos = self._videos.choose(rows.to(self._videos.device))
        return chosen

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """See `Gallery`, `PreparedVideos` and `ExactScorer.derive`."""
        assert model.pooling is not None
        return dict(zip(("inverse_deviations", "grams"), ExactScorer(model.pooling).derive(frames), strict=True))

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        return self._scorer.scores(*self._queries(texts, aligned), self._videos).cpu()

    def top(self, texts: Tensor, k: int) -> TopVideos:
        """See `Gallery`."""
        return self._scorer.top(*self._queries(texts), self._videos, k).cpu()

    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        attending = self._queries(text[None])[0] if self._by_aligned else text[None].to(self._videos.device)
        return self._scorer.attention(attending[0], self._videos, rows).cpu()

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        return (self.frame_weights(text, rows) if weights is None else weights).argmax(dim=1)

    @torch.inference_mode()
    def _queries(self, texts: Tensor, aligned: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What attends, and what is compared (T, d)."""
        texts = texts.to(self._videos.device)
        aligned = self._model.align(texts) if aligned is None else aligned.to(texts.device)
        return aligned if self._by_aligned else texts, aligned


class PairwiseGallery:
    """Videos of a method that moves every pair of text and video: scored pair by pair, a block at a time."""

    def __init__(self, model: RetrievalModel, frames: Tensor, derived: Derived) -> None:
        self._model = model
        self._frames = frames

    @staticmethod
    def derive(model: RetrievalModel, frames: Tensor) -> dict[str, Tensor]:
        """See `Gallery`: nothing can be."""
        return {}

    def select(self, rows: Tensor) -> "PairwiseGallery":
        """See `Gallery`."""
        return PairwiseGallery(self._model, self._frames[rows.to(self._frames.device)], {})

    def scores(self, texts: Tensor, aligned: Tensor | None = None) -> Tensor:
        """See `Gallery`: a text alone has no aligned embedding here."""
        return torch.cat(list(self._blocks(texts)), dim=1).cpu()

    def top(self, texts: Tensor, k: int) -> TopVideos:
        """See `Gallery`."""
        return top_of(self._blocks(texts), k).cpu()

    @torch.inference_mode()
    def frame_weights(self, text: Tensor, rows: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        pooling = self._model.pooling
        if pooling is None:
            return _equal_weights(self._frames, rows)
        text = text[None].to(self._frames.device)
        blocks = _chosen(self._frames, rows).split(_PAIRS_AT_ONCE)
        return torch.cat([pooling.attention(text, block.float())[0].mean(dim=1) for block in blocks]).cpu()

    def best_frames(self, text: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """See `Gallery`."""
        if self._model.pooling is None:
            return _nearest_frames(text, self._frames, rows)
        return (self.frame_weights(text, rows) if weights is None else weights).argmax(dim=1)

    @torch.inference_mode()
    def _blocks(self, texts: Tensor) -> Iterator[Tensor]:
        """Scores (T, n). Every block of texts and videos begins at the same seed, where anything is drawn."""
        texts = texts.to(self._frames.device)
        for videos in self._frames.split(max(1, _PAIRS_AT_ONCE // min(len(texts), 64))):
            frames = videos.float()
            yield torch.cat([self._model.similarity(some, frames) for some in texts.split(64)])


def _gallery_of(model: RetrievalModel) -> type[MeanGallery] | type[XPoolGallery] | type[PairwiseGallery]:
    if model.alignment.pairwise:
        return PairwiseGallery
    return MeanGallery if model.pooling is None else XPoolGallery


def _chosen(frames: Tensor, rows: Tensor | None) -> Tensor:
    return frames if rows is None else frames[rows.to(frames.device)]


def _equal_weights(frames: Tensor, rows: Tensor | None) -> Tensor:
    count = frames.shape[1]
    return torch.full((len(frames) if rows is None else len(rows), count), 1 / count)


@torch.inference_mode()
def _nearest_frames(text: Tensor, frames: Tensor, rows: Tensor | None) -> Tensor:
    """The frame of each video whose direction is nearest to the text's."""
    text = text.to(frames.device)
    blocks = _chosen(frames, rows).split(BLOCK)
    return torch.cat([(F.normalize(block.float(), dim=-1) @ text).argmax(dim=1) for block in blocks]).cpu()

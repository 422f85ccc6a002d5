"""What is measured of a trained model: ranks, movement of texts, the gap, times, and what a leak would gain."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.measures.gap import centroid_gap, gap_measures
from dits.evaluation.leak import leaky_scores
from dits.evaluation.metrics import ranks_by_direction
from dits.models.pooling import mean_pool
from dits.models.projections import Projections
from dits.models.retrieval import RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.trainer import PairData

PER_VIDEO = ("cosine_before", "cosine_after", "nearer", "angle", "pooled_before", "pooled_after")
"""Values of a caption that results keep as sums over each video's captions: the cosine of t and of v_0 with the own
video (its frames' mean), whether v_0 is nearer to it than t (0 or 1), the angle from t to v_0 in degrees, and the
cosines of t and v_0 with the own video as the method pools it by t."""

_TIMED_TEXTS = 32


@dataclass(frozen=True)
class Embedded:
    """A query set in the joint space, with the aligned texts.

    Attributes:
        texts: t (N, d).
        aligned: v_0 (N, d); None for a method that moves each pair of text and video in its own way.
        frames: the videos' frames (V, F, d).
        video_of: the video of each text (N,).
    """

    texts: Tensor
    aligned: Tensor | None
    frames: Tensor
    video_of: np.ndarray


@dataclass(frozen=True)
class Trained:
    """A trained model, and the projections that were trained with it; None if the encoder is frozen."""

    model: RetrievalModel
    projections: Projections | None

    @torch.no_grad()
    def embedded(self, data: PairData) -> Embedded:
        """The data with the projections applied, if there are any, and its texts aligned."""
        texts, frames = data.texts, data.frames
        if self.projections is not None:
            texts, frames = self.projections(texts, frames)
        aligned = None if self.model.alignment.pairwise else self.model.align(texts)
        return Embedded(texts, aligned, frames, data.video_of)


def ranks(model: RetrievalModel, queries: dict[str, Embedded]) -> dict[str, dict[str, list[float]]]:
    """The ranks by query set and direction; the query sets have the same videos, which are prepared once."""
    gallery = build_gallery(model, next(iter(queries.values())).frames)
    return {
        name: {
            direction: values.tolist()
            for direction, values in ranks_by_direction(gallery.scores(data.texts, data.aligned), data.video_of).items()
        }
        for name, data in queries.items()
    }


@torch.no_grad()
def alignment(model: RetrievalModel, data: Embedded, frozen: PairData, with_gap: bool = True) -> dict[str, Any]:
    """How the method moves the texts of a query set towards their videos, and the gap before and after.

    Videos are the means of their frames, and all vectors are unit vectors. "Before" is t, "after" is v_0.

    Args:
        frozen: the same query set as the frozen encoder embeds it.
        with_gap: measure all of `analysis.measures.gap.MEASURES` before and after.

    Returns:
        `per_video`: the number of captions of each video, and the sums of PER_VIDEO; `gap` with `before` and `after`;
        `closed`, the share of the distance of the centroids that v_0 closes, and `closed_from_frozen`, the share of the
        frozen encoder's distance that is closed by projections and method together. Empty for a method that moves each
        pair of text and video in its own way, because its texts alone have no v_0.
    """
    if data.aligned is None:
        return {}
    own = torch.from_numpy(data.video_of)
    videos = mean_pool(data.frames)[own]
    pooled = videos if model.pooling is None else model.own_videos(data.texts, data.frames[own])
    before, after, initial = (
        float(centroid_gap(*pair).norm())
        for pair in ((data.texts, videos), (data.aligned, videos), (frozen.texts, mean_pool(frozen.frames)[own]))
    )
    result = {
        "per_video": _sums(_moves(data.texts, data.aligned, videos, pooled), data.video_of, len(data.frames)),
        "closed": 1 - after / before,
        "closed_from_frozen": 1 - after / initial,
    }
    if with_gap:
        unmoved = torch.equal(data.aligned, data.texts)
        gap = gap_measures(data.texts, videos)
        result["gap"] = {"before": gap, "after": gap if unmoved else gap_measures(data.aligned, videos)}
    return result


def leak(model: RetrievalModel, data: Embedded) -> dict[str, float]:
    """R@1, text to video, of one caption a video: correct, and if videos are pooled by their own captions."""
    in_order = np.argsort(data.video_of)  # text i must belong to video i
    texts, video_of = data.texts[torch.from_numpy(in_order)], data.video_of[in_order]
    scores = {
        "correct": build_gallery(model, data.frames).scores(texts),
        "leaky": leaky_scores(model, texts, data.frames),
    }
    return {
        name: 100 * float(np.mean(ranks_by_direction(values, video_of)["t2v"] <= 1)) for name, values in scores.items()
    }


def times(model: RetrievalModel, data: Embedded) -> dict[str, float]:
    """Milliseconds of processor time for one query: `align` moves its text, `query` also scores it with all videos.

    Queries come one by one, as in search; the median over some. A method that moves pairs has no time to align.
    """
    texts = [row[None] for row in data.texts[:_TIMED_TEXTS]]
    gallery = build_gallery(model, data.frames)
    result = {"query": _median_ms(gallery.scores, texts)}
    if data.aligned is not None:
        with torch.inference_mode():
            result["align"] = _median_ms(model.align, texts)
    return result


def _moves(texts: Tensor, aligned: Tensor, videos: Tensor, pooled: Tensor) -> dict[str, Tensor]:
    """PER_VIDEO of every caption (N,)."""
    before, after = (F.cosine_similarity(points, videos, dim=-1) for points in (texts, aligned))
    turned = F.cosine_similarity(texts.double(), aligned.double(), dim=-1).clamp(-1, 1).acos().rad2deg()
    values = (
        before, after, (after > before).float(), turned,
        F.cosine_similarity(texts, pooled, dim=-1), F.cosine_similarity(aligned, pooled, dim=-1),
    )  # fmt: skip
    return dict(zip(PER_VIDEO, values, strict=True))


def _sums(values: dict[str, Tensor], video_of: np.ndarray, videos: int) -> dict[str, list[float]]:
    """The sums of each value over the captions of each video, and the numbers of captions."""
    sums = {name: np.bincount(video_of, column.double().numpy(), videos).round(6) for name, column in values.items()}
    return {"captions": np.bincount(video_of, minlength=videos).tolist()} | {k: v.tolist() for k, v in sums.items()}


def _median_ms(compute: Callable[[Tensor], Any], texts: list[Tensor]) -> float:
    compute(texts[0])  # the first call compiles kernels and allocates
    seconds = []
    for text in texts:
        start = time.process_time()
        compute(text)
        seconds.append(time.process_time() - start)
    return 1000 * float(np.median(seconds))

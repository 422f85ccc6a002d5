"""How sure the gap measures are: 95 % bootstrap intervals over videos, each drawn with all its texts.

Points are weighted by how often they were drawn, not repeated: copies are at distance 0, which no two points of
another sample would be, and would pull down every mean distance within a modality. For the same reason two draws of
one video are never compared with each other: they stand for two videos, whose texts are not as alike as one video's
texts. So each measure is a mean over pairs of points that weigh as much as both were drawn, where they are of two
videos, and once per draw within one (`distributions.mean_kernel`); its resamples then centre on the measure itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.measures.distributions import mmd, uniformity
from analysis.measures.gap import MEASURES, PairDistances, pair_distances, relative_modality_gap
from analysis.measures.points import different_points, first_appearances, numbered, unit
from dits.common.errors import require

MAX_RESAMPLES = 10_000

_BLOCK_NUMBERS = 4_000_000  # numbers in one block of draws: 32 MB


def gap_intervals(
    texts: Tensor, videos: Tensor, groups: np.ndarray | None = None, *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals, by measure, of texts (N, d) and the videos that belong to them (N, d).

    Args:
        groups: (N,) which pairs are drawn together, any labels; by default those that share a video. Give them where
            one video has several vectors, as it has when each text pools its own. A text or a video that stands in
            several groups is drawn with the first.
        resamples: from 1 to 10,000.
        seed: of the draws, and of what `gap_measures` draws with it.

    Absent are `separability` (a classifier would have to be trained for every resample, and one that is kept would
    hide most of the spread), `frechet` (a resample has fewer different points, which raises it further: its
    resamples lie above it), and `cross_modal_neighbours` and `hubness` (the bootstrap fails for statistics of a
    fixed number of nearest neighbours: Abadie and Imbens 2008). One group has no spread, and no intervals.

    An interval says how far other videos would move the measure, not how far the measure is off the truth: the
    distance of centroids comes out too large from few points, and so does its interval.

    Above `sampled` points, uniformity and mmd have the intervals of the sample, which are wider than all points' are.

    Raises:
        InputError: see `gap_measures`; or the groups are not one a pair, or there are too few or too many resamples.
    """
    require(
        1 <= resamples <= MAX_RESAMPLES,
        f"The resamples must be from 1 to {MAX_RESAMPLES:,}, not {resamples}.",
    )
    distances = pair_distances(texts, videos)
    text, video = different_points(unit(texts), unit(videos))
    videos_of_pairs = first_appearances(unit(videos))[1].numpy()
    _, pair_group = numbered(videos_of_pairs if groups is None else _labels(groups, len(texts)))
    count = int(pair_group.max()) + 1
    if count < 2:
        return {}
    video_group = pair_group[video.row]
    text_group = video_group[text.video]
    draws = _draws(count, resamples, seed)
    cloud_sums = _Sums.of(text.units, text_group, count), _Sums.of(video.units, video_group, count)
    pair_sums = _Sums.of(torch.from_numpy(_columns(distances)), pair_group, count)
    blocks = [_exact(block.double(), pair_sums, *cloud_sums) for block in draws.split(max(1, _BLOCK_NUMBERS // count))]
    drawn = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    some_text, some_video = text.sample(seed), video.sample(seed)
    some_groups = video_group[some_text.video], pair_group[some_video.row]
    drawn["uniformity_text"] = uniformity(some_text, some_groups[0], draws)
    drawn["uniformity_video"] = uniformity(some_video, some_groups[1], draws)
    drawn["mmd"] = mmd(some_text, some_video, some_groups, draws, seed=seed)
    return {name: _interval(drawn[name].numpy()) for name in MEASURES if name in drawn and drawn[name].isfinite().any()}


@dataclass(frozen=True)
class _Sums:
    """Vectors (n, d), of which only sums by group are needed: sums (G, d), and how many each group has (G,)."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, vectors: Tensor, group: Tensor, groups: int) -> "_Sums":
        sums = torch.zeros(groups, vectors.shape[1], dtype=vectors.dtype).index_add_(0, group, vectors)
        return cls(sums, torch.bincount(group, minlength=groups).to(vectors.dtype))


@dataclass(frozen=True)
class _Drawn:
    """The sums of draws (B, G): vectors (B, d) and numbers (B,), each group as often as it was drawn."""

    of: _Sums
    sums: Tensor
    counts: Tensor

    @classmethod
    def by(cls, draws: Tensor, of: _Sums) -> "_Drawn":
        return cls(of, draws @ of.sums, draws @ of.counts)


def _exact(draws: Tensor, pairs: _Sums, texts: _Sums, videos: _Sums) -> dict[str, Tensor]:
    """The measures (B,) that follow from sums by group, for draws (B, G)."""
    l1, l2, cosine, alignment = ((draws @ pairs.sums) / (draws @ pairs.counts)[:, None]).unbind(dim=1)
    text, video = _Drawn.by(draws, texts), _Drawn.by(draws, videos)
    cone_text = _mean_product(draws, text, text, texts.counts)
    cone_video = _mean_product(draws, video, video, videos.counts)
    nothing = torch.zeros_like(texts.counts)
    inside = _mean_product(draws, text, text, nothing) + _mean_product(draws, video, video, nothing)
    squared = inside - 2 * _mean_product(draws, text, video, nothing)
    return {
        "l2": l2,
        "l1": l1,
        "cosine": cosine,
        "alignment": alignment,
        "centroid_distance": squared.clamp_min(0).sqrt(),
        "rmg": relative_modality_gap(cosine, cone_text, cone_video),
        "cone_text": cone_text,
        "cone_video": cone_video,
    }


def _mean_product(draws: Tensor, x: _Drawn, y: _Drawn, left_out: Tensor) -> Tensor:
    """Mean dot product (B,) of points of x and y, weighted as in `mean_kernel`; of none, not a number.

    `left_out` (G,): how many products of a unit vector with itself each group has and the mean leaves out.
    """
    products, pairs = (x.of.sums * y.of.sums).sum(dim=1), x.of.counts * y.of.counts
    squared = draws.square()
    total = (x.sums * y.sums).sum(dim=1) - squared @ products + draws @ (products - left_out)
    number = x.counts * y.counts - squared @ pairs + draws @ (pairs - left_out)
    return (total / number).masked_fill(number <= 0, torch.nan)  # rounding leaves more than 0 of a total of nothing


def _columns(distances: PairDistances) -> np.ndarray:
    return np.column_stack([distances.l1, distances.l2, distances.cosine, distances.l2**2])


def _labels(groups: np.ndarray, pairs: int) -> np.ndarray:
    labels = np.asarray(groups)
    require(
        labels.shape == (pairs,),
        f"The groups must be one label for each of the {pairs} pairs, not of shape {labels.shape}.",
    )
    return labels


def _draws(groups: int, resamples: int, seed: int) -> Tensor:
    """How often (B, G) each group is drawn in each resample: at most 255 times, which chance never exceeds."""
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, groups), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
    return torch.from_numpy(counts)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the resamples in which a measure has a value: without those of one point throughout."""
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)

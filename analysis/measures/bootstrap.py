"""95 % bootstrap intervals of the gap measures, over videos: each video is drawn with all its texts.

A point that is drawn several times gets a higher weight; it is not repeated. Repeated points would be at distance 0
from each other, unlike the points of a new sample, and would lower every mean distance within a modality. For the same
reason, two draws of one video are never compared with each other: they represent two videos, and the texts of two
videos are less alike than the texts of one. So each measure is a mean over pairs of points. The weight of a pair is the
product of both numbers of draws if the points are of two videos, and the number of draws if they are of one
(`distributions.mean_kernel`). The resamples then centre on the measure itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.measures.distributions import mmd, uniformity
from analysis.measures.gap import MEASURES, pair_distances, relative_modality_gap
from analysis.measures.points import distinct_points, first_appearances, index_of_distinct, unit
from dits.common.errors import require

MAX_RESAMPLES = 10_000

_BLOCK_NUMBERS = 4_000_000  # numbers in a block of draws: 32 MB


def gap_intervals(
    texts: Tensor, videos: Tensor, groups: np.ndarray | None = None, *, resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals, by measure, of texts (N, d) and their videos (N, d).

    Args:
        groups: (N,) labels: pairs with one label are drawn together; by default those that share a video. They are
            needed if one video has several vectors, such as one for each text that pools it. A text or a video in
            several groups is drawn with the first of them.
        resamples: from 1 to 10,000.
        seed: the seed of the draws, and of the random samples that `gap_measures` takes.

    Four measures have no interval. `separability` would need a new classifier for every resample; a fixed one would
    hide most of the spread. `frechet` grows when there are fewer distinct points, as in a resample, so its resamples
    lie above it. The bootstrap fails for `cross_modal_neighbours` and `hubness`, as for all statistics of a fixed
    number of nearest neighbours (Abadie and Imbens 2008). A single group has no spread and gives no intervals.

    An interval shows how much other videos would change the measure, not its bias: few points overestimate the
    distance of centroids, and its interval too.

    If uniformity and mmd are measured on a sample (`sample_size`), the intervals are those of the sample, which are
    wider than those of all points.

    Raises:
        InputError: see `gap_measures`; or the groups are not one label a pair, or the resamples are out of range.
    """
    require(1 <= resamples <= MAX_RESAMPLES, f"The resamples must be from 1 to {MAX_RESAMPLES:,}, not {resamples}.")
    distances = pair_distances(texts, videos)
    text, video = distinct_points(unit(texts), unit(videos))
    videos_of_pairs = first_appearances(unit(videos))[1].numpy()
    labels = videos_of_pairs if groups is None else np.asarray(groups)
    require(
        labels.shape == (len(texts),),
        f"The groups must be one label for each of the {len(texts)} pairs, not of shape {labels.shape}.",
    )
    _, pair_group = index_of_distinct(labels)
    count = int(pair_group.max()) + 1
    if count < 2:
        return {}
    video_group = pair_group[video.row]
    text_group = video_group[text.video]
    draws = _draws(count, resamples, seed)
    cloud_sums = _GroupSums.of(text.units, text_group, count), _GroupSums.of(video.units, video_group, count)
    columns = np.column_stack([distances.l1, distances.l2, distances.cosine, distances.l2**2])
    pair_sums = _GroupSums.of(torch.from_numpy(columns), pair_group, count)
    blocks = [_exact(block.double(), pair_sums, *cloud_sums) for block in draws.split(max(1, _BLOCK_NUMBERS // count))]
    values = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    text_sample, video_sample = text.sample(seed), video.sample(seed)
    sample_groups = video_group[text_sample.video], pair_group[video_sample.row]
    values["uniformity_text"] = uniformity(text_sample, sample_groups[0], draws)
    values["uniformity_video"] = uniformity(video_sample, sample_groups[1], draws)
    values["mmd"] = mmd(text_sample, video_sample, sample_groups, draws, seed=seed)
    return {
        name: _interval(values[name].numpy()) for name in MEASURES if name in values and values[name].isfinite().any()
    }


@dataclass(frozen=True)
class _GroupSums:
    """Sums by group (G, d) of vectors, and the number of vectors in each group (G,)."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, vectors: Tensor, group: Tensor, groups: int) -> "_GroupSums":
        sums = torch.zeros(groups, vectors.shape[1], dtype=vectors.dtype).index_add_(0, group, vectors)
        return cls(sums, torch.bincount(group, minlength=groups).to(vectors.dtype))


@dataclass(frozen=True)
class _DrawSums:
    """Sums (B, d) and numbers (B,) of vectors for draws (B, G), each group weighted by its number of draws."""

    groups: _GroupSums
    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, draws: Tensor, groups: _GroupSums) -> "_DrawSums":
        return cls(groups, draws @ groups.sums, draws @ groups.counts)


def _exact(draws: Tensor, pairs: _GroupSums, texts: _GroupSums, videos: _GroupSums) -> dict[str, Tensor]:
    """The measures (B,) that follow from sums by group, for draws (B, G)."""
    l1, l2, cosine, alignment = ((draws @ pairs.sums) / (draws @ pairs.counts)[:, None]).unbind(dim=1)
    text, video = _DrawSums.of(draws, texts), _DrawSums.of(draws, videos)
    cone_text = _mean_product(draws, text, text, texts.counts)
    cone_video = _mean_product(draws, video, video, videos.counts)
    zeros = torch.zeros_like(texts.counts)
    within = _mean_product(draws, text, text, zeros) + _mean_product(draws, video, video, zeros)
    squared = within - 2 * _mean_product(draws, text, video, zeros)
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


def _mean_product(draws: Tensor, x: _DrawSums, y: _DrawSums, excluded: Tensor) -> Tensor:
    """Mean dot product (B,) of points of x and y, weighted as in `mean_kernel`; NaN if there are no pairs.

    `excluded` (G,): for each group, the number of products of a unit vector with itself that the mean excludes.
    """
    products, pairs = (x.groups.sums * y.groups.sums).sum(dim=1), x.groups.counts * y.groups.counts
    squared = draws.square()
    total = (x.sums * y.sums).sum(dim=1) - squared @ products + draws @ (products - excluded)
    number = x.counts * y.counts - squared @ pairs + draws @ (pairs - excluded)
    return (total / number).masked_fill(number <= 0, torch.nan)  # a total of no pairs is not exactly 0


def _draws(groups: int, resamples: int, seed: int) -> Tensor:
    """The number of draws (B, G) of each group in each resample, which never reaches 256 by chance."""
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, groups), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
    return torch.from_numpy(counts)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the resamples in which a measure is defined, which needs two distinct points."""
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)

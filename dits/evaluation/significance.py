"""Bootstrap intervals of retrieval metrics, and paired tests between two methods, from one rank per query.

Only the queries are resampled; the gallery and the weights are fixed. The intervals do not include the variation
between training seeds.

Several captions of one video are not independent: a video that is hard to find is hard to find for all of them. By
default videos are therefore drawn, each with all its captions (the cluster bootstrap: Davison and Hinkley 1997, section
3.8). If every video has one caption, this is the bootstrap over queries.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dits.common.errors import InputError, require
from dits.evaluation.metrics import METRIC_NAMES, RECALLS_AT

Interval = tuple[float, float]
"""The lower and the upper bound."""

_BLOCK_NUMBERS = 2_000_000  # numbers in the largest temporary


@dataclass(frozen=True)
class BootstrapConfig:
    """The settings of the bootstrap.

    Attributes:
        resamples: number of resamples (1000).
        confidence: percentage of the resamples in an interval (95).
        draw: the units that are drawn with replacement: videos (default), each with all its captions, or queries, as
            if they were independent.
        seed: seed of the resamples (0).
    """

    resamples: int = 1000
    confidence: float = 95.0
    draw: str = "videos"
    seed: int = 0

    def __post_init__(self) -> None:
        require(1 <= self.resamples <= 1_000_000, f"The resamples must be from 1 to 1,000,000, not {self.resamples}.")
        require(0 < self.confidence < 100, f"The confidence must be between 0 and 100 percent, not {self.confidence}.")
        require(
            self.draw in ("videos", "queries"),
            f"The bootstrap draws videos or queries, not '{self.draw}': choose one of the two.",
        )
        require(0 <= self.seed < 2**31, f"The seed must be from 0 to {2**31 - 1}, not {self.seed}.")


@dataclass(frozen=True)
class Difference:
    """A difference between two methods, first minus second, with its bootstrap interval and p-value.

    Attributes:
        value: the difference on the original queries.
        low: lower bound of the interval.
        high: upper bound of the interval.
        p: two-sided p-value: the share of resamples at least as far from `value` as `value` is from zero, where one is
            added to both counts.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same queries.

    Attributes:
        queries: number of queries.
        drawn: number of units that the bootstrap draws from: videos or queries.
        differences: of "R@1" (points), "MRR" (the mean reciprocal rank, from 0 to 1) and "MnR" (the mean rank).
        only_first: number of queries whose video only the first method ranks first.
        only_second: number of queries whose video only the second method ranks first.
        mcnemar_p: p-value of the exact two-sided McNemar test of these two counts. It assumes independent queries, so
            it is too small with several captions per video.
    """

    queries: int
    drawn: int
    differences: dict[str, Difference]
    only_first: int
    only_second: int
    mcnemar_p: float


def intervals(ranks: np.ndarray, videos: np.ndarray, config: BootstrapConfig) -> dict[str, Interval]:
    """Percentile intervals of every metric of the ranks (N,), whose queries belong to `videos` (N,).

    The result is empty for a single unit, because one unit has no variation. A metric at its bound (R@1 of 100) has an
    interval of zero width for any number of queries.
    """
    units = _units(videos, config)
    if units.max() == 0:
        return {}
    order = np.argsort(ranks)
    ordered = np.asarray(ranks, dtype=float)[order]
    resampled = np.concatenate([_weighted_metrics(ordered, weights[:, order]) for weights in _resamples(units, config)])
    low, high = _percentiles(resampled, config)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(METRIC_NAMES)}


def compare(first: np.ndarray, second: np.ndarray, videos: np.ndarray, config: BootstrapConfig) -> Comparison:
    """Paired tests between two methods' ranks (N,) of the same queries, which belong to `videos` (N,).

    The paired bootstrap draws videos (or queries, see `BootstrapConfig.draw`); each query keeps both its ranks. Its
    p-value centres the resampled differences on zero (Efron and Tibshirani 1993, section 16.4).

    Raises:
        InputError: the numbers of queries differ or are 0.
    """
    if not len(first) == len(second) == len(videos) or not len(first):
        raise InputError("Two methods can only be compared on the same queries, and on at least one.")
    statistics: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "R@1": lambda ranks: 100.0 * (ranks <= 1),
        "MRR": lambda ranks: 1 / ranks,
        "MnR": lambda ranks: ranks,
    }
    per_query = np.stack([statistic(first) - statistic(second) for statistic in statistics.values()], axis=1)
    units = _units(videos, config)
    resampled = np.concatenate([w @ per_query / w.sum(axis=1, keepdims=True) for w in _resamples(units, config)])
    value = per_query.mean(axis=0)  # (statistics,)
    low, high = _percentiles(resampled, config)
    extreme = np.abs(resampled - value) >= np.abs(value)
    p = (1 + np.count_nonzero(extreme, axis=0)) / (1 + len(resampled))
    only_first, only_second = int(np.sum((first <= 1) & (second > 1))), int(np.sum((second <= 1) & (first > 1)))
    return Comparison(
        queries=len(first),
        drawn=int(units.max()) + 1,
        differences={
            name: Difference(float(value[i]), float(low[i]), float(high[i]), float(p[i]))
            for i, name in enumerate(statistics)
        },
        only_first=only_first,
        only_second=only_second,
        mcnemar_p=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: a binomial test of the discordant queries against one half."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def _units(videos: np.ndarray, config: BootstrapConfig) -> np.ndarray:
    """The unit (N,), numbered from 0, that each query is drawn with."""
    if config.draw == "queries":
        return np.arange(len(videos))
    return np.unique(videos, return_inverse=True)[1]


def _resamples(units: np.ndarray, config: BootstrapConfig) -> Iterator[np.ndarray]:
    """Blocks (B, N) of the number of times that each query is in each resample."""
    rng = np.random.default_rng(config.seed)
    count = int(units.max()) + 1
    block = max(1, _BLOCK_NUMBERS // len(units))
    for start in range(0, config.resamples, block):
        size = min(block, config.resamples - start)
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)[:, units]


def _weighted_metrics(ordered: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The metrics (B, 6) of ascending ranks (N,), each counted `weights` (B, N) times."""
    counts = weights.cumsum(axis=1)
    total = counts[:, -1]
    positions = np.searchsorted(ordered, RECALLS_AT, side="right")  # number of ranks of at most k
    recalls = 100.0 * np.pad(counts, ((0, 0), (1, 0)))[:, positions] / total[:, None]
    middle = [ordered[np.count_nonzero(counts <= m[:, None], axis=1)] for m in ((total - 1) // 2, total // 2)]
    return np.column_stack([recalls, (middle[0] + middle[1]) / 2, weights @ ordered / total])


def _percentiles(resampled: np.ndarray, config: BootstrapConfig) -> np.ndarray:
    """The bounds (2, S) of the middle `confidence` percent of resampled statistics (B, S)."""
    tail = (100 - config.confidence) / 2
    return np.percentile(resampled, [tail, 100 - tail], axis=0)

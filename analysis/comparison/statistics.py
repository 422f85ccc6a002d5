"""Intervals and tests of ranks from several seeds: the videos are drawn, each with all its queries and all seeds.

The statistics of a query are averaged over the seeds first. This is the same as pooling the queries of all seeds and
drawing a video with all of them (`dits.evaluation.significance.compare` on pooled ranks), but far quicker. The interval
holds how much other videos would change the result. How much other seeds would is the standard deviation over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from dits.evaluation.significance import BootstrapConfig, Difference

RECALLS_AT = (1, 5, 10)

STATISTICS = (*(f"R@{k}" for k in RECALLS_AT), "MRR", "MnR", "recalls")
"""Means over queries: recalls in percent, the reciprocal rank, the rank, and the sum of the three recalls."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, difference: Difference) -> "Estimate":
        """The value and the interval of a difference."""
        return cls(difference.value, difference.low, difference.high)


def statistics_of(ranks: np.ndarray) -> np.ndarray:
    """STATISTICS of every query, averaged over seeds: (N, 6), from ranks (S, N) counted from 1."""
    hits = [100.0 * (ranks <= k) for k in RECALLS_AT]
    return np.stack([*hits, 1 / ranks, ranks, sum(hits)], axis=-1).mean(axis=0)


class VideoBootstrap:
    """Resamples of the videos that N queries belong to; one set of draws for all statistics of these queries."""

    def __init__(self, videos: np.ndarray, config: BootstrapConfig) -> None:
        """`videos` (N,) are the queries' videos. `config.draw` is not used: videos are drawn."""
        self._unit = np.unique(videos, return_inverse=True)[1]
        self._confidence = config.confidence
        count = int(self._unit.max()) + 1
        rng = np.random.default_rng(config.seed)
        drawn = (rng.integers(count, size=count) for _ in range(config.resamples))
        self._draws = np.stack([np.bincount(row, minlength=count) for row in drawn])  # (B, videos)
        self._sizes = self._draws @ np.bincount(self._unit, minlength=count)

    def estimate(self, values: np.ndarray) -> Estimate:
        """The mean of values (N,), and its percentile interval; of a single video the interval is the value."""
        low, high = self._interval(self._means(values[:, None])[:, 0])
        return Estimate(float(values.mean()), low, high)

    def estimate_of_sums(self, sums: np.ndarray) -> Estimate:
        """Like `estimate`, from the sums of the values over the queries of each video (videos,), by its number."""
        low, high = self._interval(self._draws @ sums / self._sizes)
        return Estimate(float(sums.sum() / len(self._unit)), low, high)

    def estimates(self, ranks: np.ndarray) -> dict[str, Estimate]:
        """Each of STATISTICS of ranks (S, N), with its interval."""
        values = statistics_of(ranks)
        means = self._means(values)
        return {
            name: Estimate(float(values[:, i].mean()), *self._interval(means[:, i]))
            for i, name in enumerate(STATISTICS)
        }

    def differences(self, first: np.ndarray, second: np.ndarray) -> dict[str, Difference]:
        """Each of STATISTICS of ranks (S, N) minus that of other ranks (S', N) of the same queries, paired.

        The p-value is two-sided; the differences of the resamples are centred on zero (Efron and Tibshirani 1993,
        section 16.4).
        """
        values = statistics_of(first) - statistics_of(second)
        means = self._means(values)
        return {name: self._difference(values[:, i].mean(), means[:, i]) for i, name in enumerate(STATISTICS)}

    def _difference(self, value: float, means: np.ndarray) -> Difference:
        extreme = np.count_nonzero(np.abs(means - value) >= abs(value))
        return Difference(float(value), *self._interval(means), (1 + extreme) / (1 + len(means)))

    def _means(self, values: np.ndarray) -> np.ndarray:
        """The mean (B, K) of values (N, K) over the queries of each resample."""
        sums = np.stack([np.bincount(self._unit, column, self._draws.shape[1]) for column in values.T], axis=1)
        return self._draws @ sums / self._sizes[:, None]

    def _interval(self, means: np.ndarray) -> tuple[float, float]:
        tail = (100 - self._confidence) / 2
        low, high = np.percentile(means, [tail, 100 - tail])
        return float(low), float(high)


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed, and its 95 % interval by Student's t; without limits if there is one seed."""
    from scipy.stats import t

    if len(values) < 2:
        return Estimate(fmean(values), -np.inf, np.inf)
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Estimate(fmean(values), fmean(values) - half, fmean(values) + half)


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds; 0 for one seed."""
    return stdev(values) if len(values) > 1 else 0.0

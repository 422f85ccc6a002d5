"""Intervals and tests over seeds: against the bootstrap of `dits.evaluation.significance` on pooled ranks."""

import math

import numpy as np
import pytest

from analysis.comparison.statistics import VideoBootstrap, over_seeds, spread, statistics_of
from dits.evaluation.metrics import metrics_of
from dits.evaluation.significance import BootstrapConfig, compare

CONFIG = BootstrapConfig(resamples=300)
VIDEOS = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 4, 5, 6])


@pytest.fixture
def ranks():
    """Ranks of two methods by three seeds."""
    return np.random.default_rng(0).integers(1, 15, size=(2, 3, len(VIDEOS))).astype(float)


def test_a_difference_is_that_of_the_pooled_queries(ranks):
    first, second = ranks
    pooled = compare(first.ravel(), second.ravel(), np.tile(VIDEOS, 3), CONFIG).differences
    ours = VideoBootstrap(VIDEOS, CONFIG).differences(first, second)
    for name, expected in pooled.items():
        assert ours[name].value == pytest.approx(expected.value)
        assert (ours[name].low, ours[name].high) == pytest.approx((expected.low, expected.high))
        assert ours[name].p == pytest.approx(expected.p, abs=0.01)  # a tie can fall to either side by rounding


def test_values_are_means_over_seeds_of_the_metrics(ranks):
    estimates = VideoBootstrap(VIDEOS, CONFIG).estimates(ranks[0])
    metrics = [metrics_of(seed).as_dict() for seed in ranks[0]]
    for name in ("R@1", "R@5", "R@10", "MnR"):
        assert estimates[name].value == pytest.approx(np.mean([values[name] for values in metrics]))
        assert estimates[name].low <= estimates[name].value <= estimates[name].high
    total = sum(estimates[name].value for name in ("R@1", "R@5", "R@10"))
    assert estimates["recalls"].value == pytest.approx(total)


def test_sums_by_video_and_values_by_query_give_the_same_interval(ranks):
    values = statistics_of(ranks[0])[:, 4]
    bootstrap = VideoBootstrap(VIDEOS, CONFIG)
    by_video, by_query = bootstrap.estimate_of_sums(np.bincount(VIDEOS, values)), bootstrap.estimate(values)
    assert (by_video.value, by_video.low, by_video.high) == pytest.approx((by_query.value, by_query.low, by_query.high))


def test_one_video_has_no_width():
    estimate = VideoBootstrap(np.zeros(3, int), CONFIG).estimate(np.array([1.0, 2.0, 6.0]))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((3, 3, 3))


def test_the_interval_over_seeds_is_students():
    """Two values: t of one degree of freedom is the tangent, tan(0.475 pi) = 12.706."""
    estimate = over_seeds([1.0, 3.0])
    half = math.tan(0.475 * math.pi)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2 - half, 2 + half))
    single = over_seeds([5.0])
    assert (single.value, single.low, single.high) == (5, -math.inf, math.inf)
    assert spread([5.0]) == 0
    assert spread([1.0, 3.0]) == pytest.approx(2**0.5)

"""Intervals and tests against known distributions, SciPy, and what they promise over many made-up experiments."""

import numpy as np
import pytest
from scipy import stats

from dits.common.errors import InputError
from dits.evaluation.metrics import METRIC_NAMES, metrics_of
from dits.evaluation.significance import BootstrapConfig, compare, intervals, mcnemar

MANY = BootstrapConfig(resamples=20_000)


def skewed_ranks(count, seed=0):
    """Ranks as retrieval gives them: many at the top, a long tail, some shared."""
    rng = np.random.default_rng(seed)
    return np.ceil(rng.lognormal(1.5, 1.4, size=count) * 2) / 2 + 0.5


def test_interval_of_recall_is_that_of_a_binomial():
    """Resampling N queries of which a share p is found counts a Binomial(N, p)."""
    ranks = np.repeat([1.0, 7.0], [63, 137])
    low, high = intervals(ranks, np.arange(200), MANY)["R@1"]
    expected = stats.binom.ppf([0.025, 0.975], 200, 63 / 200) / 2
    np.testing.assert_allclose([low, high], expected, atol=0.5)  # half a point is one query


@pytest.mark.parametrize("count", [60, 61])
def test_every_metric_has_scipys_percentile_interval(count):
    ranks = skewed_ranks(count)
    found = intervals(ranks, np.arange(count), MANY)
    for name in METRIC_NAMES:
        statistic = lambda x, name=name: metrics_of(x).as_dict()[name]  # noqa: E731
        reference = stats.bootstrap((ranks,), statistic, n_resamples=2000, method="percentile", vectorized=False, rng=0)
        one_step = {"MdR": 0.5, "MnR": 0}.get(name, 100 / count)
        tolerance = 0.2 * reference.standard_error + one_step
        np.testing.assert_allclose(found[name], reference.confidence_interval, atol=tolerance)


def test_the_median_of_an_even_number_lies_between_the_middle_two():
    """Half of the resamples of two queries hold both of them: the middle 40 percent of medians are their mean."""
    found = intervals(np.array([3.0, 8.0]), np.arange(2), BootstrapConfig(resamples=20_000, confidence=40))
    assert found["MdR"] == (5.5, 5.5)


def test_drawing_videos_equals_drawing_groups_one_by_one():
    ranks, videos = skewed_ranks(60), np.random.default_rng(1).integers(0, 12, size=60)
    found = intervals(ranks, videos, BootstrapConfig(resamples=20_000, confidence=90))
    rng = np.random.default_rng(7)
    groups = [ranks[videos == video] for video in np.unique(videos)]
    drawn = [
        metrics_of(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])).as_dict()
        for _ in range(4000)
    ]
    for name in METRIC_NAMES:
        values = [metrics[name] for metrics in drawn]
        np.testing.assert_allclose(found[name], np.percentile(values, [5, 95]), atol=0.15 * np.std(values) + 1e-9)


def test_repeating_every_query_makes_only_the_interval_over_queries_narrower():
    """Five copies of a query say no more than one; an interval over queries believes they do."""
    ranks, videos = skewed_ranks(80), np.arange(80)
    copies, copied_videos = np.repeat(ranks, 5), np.repeat(videos, 5)
    single = intervals(ranks, videos, MANY)
    copied = intervals(copies, copied_videos, MANY)
    np.testing.assert_allclose([copied[name] for name in METRIC_NAMES], [single[name] for name in METRIC_NAMES])
    low, high = intervals(copies, copied_videos, BootstrapConfig(20_000, draw="queries"))["MnR"]
    assert (high - low) / (single["MnR"][1] - single["MnR"][0]) == pytest.approx(1 / 5**0.5, rel=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    covered = 0
    for experiment in range(300):
        ranks = np.where(rng.random(150) < 0.4, 1.0, 30.0)
        low, high = intervals(ranks, np.arange(150), BootstrapConfig(400, seed=experiment))["R@1"]
        covered += low <= 40 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_seed_decides():
    ranks, videos = skewed_ranks(50), np.arange(50)
    assert intervals(ranks, videos, BootstrapConfig(seed=1)) == intervals(ranks, videos, BootstrapConfig(seed=1))
    assert intervals(ranks, videos, BootstrapConfig(seed=1)) != intervals(ranks, videos, BootstrapConfig(seed=2))


def test_the_order_of_queries_does_not_matter_where_videos_are_drawn():
    ranks, videos = skewed_ranks(40), np.repeat(np.arange(10), 4)
    order = np.random.default_rng(0).permutation(40)
    mixed, plain = intervals(ranks[order], videos[order], MANY), intervals(ranks, videos, MANY)
    np.testing.assert_allclose([mixed[name] for name in METRIC_NAMES], [plain[name] for name in METRIC_NAMES])


def test_one_video_has_no_interval_and_perfection_one_without_width():
    assert intervals(np.array([1.0, 2.0]), np.array([4, 4]), BootstrapConfig()) == {}
    assert intervals(np.ones(9), np.arange(9), BootstrapConfig())["R@1"] == (100, 100)


def test_mcnemar_by_hand():
    assert mcnemar(10, 2) == mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)


def test_comparison_counts_and_differences():
    first, second = np.array([1.0, 1, 1, 4, 2]), np.array([1.0, 2, 4, 1, 2])
    found = compare(first, second, np.arange(5), BootstrapConfig())
    assert (found.queries, found.drawn, found.only_first, found.only_second) == (5, 5, 2, 1)
    assert found.differences["R@1"].value == pytest.approx(20)
    assert found.differences["MRR"].value == pytest.approx((0 + 0.5 + 0.75 - 0.75 + 0) / 5)
    assert found.differences["MnR"].value == pytest.approx((0 - 1 - 3 + 3 + 0) / 5)
    turned = compare(second, first, np.arange(5), BootstrapConfig())
    for name, difference in found.differences.items():
        assert turned.differences[name].value == pytest.approx(-difference.value)
        assert turned.differences[name].low == pytest.approx(-difference.high)
        assert turned.differences[name].p == pytest.approx(difference.p)


def test_a_method_does_not_differ_from_itself():
    ranks = skewed_ranks(50)
    found = compare(ranks, ranks, np.arange(50), BootstrapConfig())
    assert {(d.value, d.low, d.high, d.p) for d in found.differences.values()} == {(0, 0, 0, 1)}
    assert found.mcnemar_p == 1


def test_p_values_are_near_a_paired_permutation_test():
    first = skewed_ranks(150)
    second = np.maximum(1, first + np.random.default_rng(4).normal(-0.2, 5, size=150).round())
    found = compare(first, second, np.arange(150), MANY).differences["MnR"]
    difference = lambda a, b: np.mean(a - b)  # noqa: E731
    reference = stats.permutation_test(
        (first, second), difference, permutation_type="samples", vectorized=False, n_resamples=4000, rng=0
    )
    assert 0.005 < reference.pvalue < 0.5
    assert found.p == pytest.approx(reference.pvalue, abs=0.03)


def test_equal_methods_are_called_different_as_rarely_as_promised():
    rng = np.random.default_rng(5)
    called = {"R@1": 0, "MRR": 0, "MnR": 0}
    for experiment in range(300):
        both = skewed_ranks(120, experiment)
        first, second = (np.maximum(1, both + rng.integers(-3, 4, size=120)) for _ in range(2))
        for name, difference in compare(first, second, np.arange(120), BootstrapConfig(300)).differences.items():
            called[name] += difference.p <= 0.05
    for name, count in called.items():
        assert 0.01 <= count / 300 <= 0.09, name


def test_captions_that_agree_within_a_video_make_a_difference_less_sure():
    """Five captions each of 20 videos that all move together are 20 observations, not 100."""
    moved = np.repeat(np.random.default_rng(6).normal(0, 1.5, size=20) + 0.3, 5)
    first = np.full(100, 20.0)
    videos = np.repeat(np.arange(20), 5)
    by_video = compare(first + moved, first, videos, BootstrapConfig()).differences["MnR"]
    by_query = compare(first + moved, first, videos, BootstrapConfig(draw="queries")).differences["MnR"]
    assert by_video.p > 3 * by_query.p
    assert by_video.high - by_video.low > 1.8 * (by_query.high - by_query.low)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"resamples": 0}, "from 1 to"),
        ({"confidence": 100.0}, "between 0 and 100"),
        ({"draw": "words"}, "videos or queries"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_refuses_settings_without_meaning(settings, says):
    with pytest.raises(InputError, match=says):
        BootstrapConfig(**settings)


@pytest.mark.parametrize("counts", [(3, 2, 3), (3, 3, 2), (0, 0, 0)])
def test_refuses_ranks_of_different_queries(counts):
    with pytest.raises(InputError, match="same queries"):
        compare(*(np.ones(count) for count in counts), BootstrapConfig())

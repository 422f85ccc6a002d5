"""Intervals of gap measures against a plain slow bootstrap, repeated experiments, and what they are drawn over."""

import math

import numpy as np
import pytest
import torch

from analysis.measures import bootstrap as module
from analysis.measures import distributions, points
from analysis.measures.bootstrap import gap_intervals
from analysis.measures.gap import MEASURES, centroid_gap, gap_measures
from analysis.measures.points import unit
from dits.common.errors import InputError
from tests.analysis.measures.test_gap import captioned, vectors

WITHOUT = {"separability", "frechet", "cross_modal_neighbours", "hubness"}


def slow_measures(drawn, texts, videos, width):
    """The measures of drawn videos, one after the other: texts (V, C, d) and videos (V, d), unit vectors.

    Every draw is a video of its own with its C texts. Points of two draws of one video are not compared.
    """
    count = texts.shape[1]
    text = [(copy, v, texts[v, c]) for copy, v in enumerate(drawn) for c in range(count)]
    video = [(copy, v, videos[v]) for copy, v in enumerate(drawn)]

    def mean(first, second, function, *, itself=False, own=True):
        """Over pairs of points of two videos, and within each draw; `own` False leaves the latter out."""
        values = []
        for i, (copy_a, a, x) in enumerate(first):
            for j, (copy_b, b, y) in enumerate(second):
                within = copy_a == copy_b and own and (itself or first is not second or i != j)
                if a != b or within:
                    values.append(function(x, y))
        return np.mean(values) if values else math.nan

    dot = lambda x, y: x @ y  # noqa: E731
    near = lambda x, y: math.exp(-2 * (x - y) @ (x - y))  # noqa: E731
    kernel = lambda x, y: math.exp(-((x - y) @ (x - y)) / (2 * width**2))  # noqa: E731
    difference = np.stack([videos[v] - x for _, v, x in text])
    cosine = np.mean([videos[v] @ x for _, v, x in text])
    cone_text, cone_video = mean(text, text, dot), mean(video, video, dot)
    paired, within = (1 - cosine) / 2, (2 - cone_text - cone_video) / 4
    inside = mean(text, text, dot, itself=True) + mean(video, video, dot, itself=True)
    return {
        "l2": np.linalg.norm(difference, axis=1).mean(),
        "l1": np.abs(difference).sum(axis=1).mean(),
        "cosine": cosine,
        "alignment": (difference**2).sum(axis=1).mean(),
        "centroid_distance": math.sqrt(max(0, inside - 2 * mean(text, video, dot))),
        "rmg": paired / (paired + within),
        "uniformity_text": math.log(mean(text, text, near)),
        "uniformity_video": math.log(mean(video, video, near)),
        "cone_text": cone_text,
        "cone_video": cone_video,
        "mmd": mean(text, text, kernel, own=False)
        + mean(video, video, kernel, own=False)
        - 2 * mean(text, video, kernel, own=False),
    }


@pytest.mark.parametrize("block", [40, 4_000_000])
def test_intervals_are_those_of_a_plain_slow_bootstrap(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", block)
    monkeypatch.setattr(distributions, "_BLOCK_NUMBERS", block)
    texts, videos = captioned(7, 2, 6)
    found = gap_intervals(texts, videos, resamples=25, seed=4)
    t, v = unit(texts).view(7, 2, 6).numpy(), unit(videos)[::2].numpy()
    width = np.median(torch.pdist(unit(torch.cat([texts, videos[::2]]))).numpy())
    rng = np.random.default_rng(4)
    drawn = [slow_measures(rng.integers(7, size=7), t, v, width) for _ in range(25)]
    assert list(found) == [name for name in MEASURES if name not in WITHOUT]
    for name, interval in found.items():
        expected = np.percentile([values[name] for values in drawn], [2.5, 97.5])
        np.testing.assert_allclose(interval, expected, atol=1e-6, err_msg=name)
    whole = slow_measures(range(7), t, v, width)
    measures = gap_measures(texts, videos)
    for name, value in whole.items():
        assert value == pytest.approx(measures[name], abs=1e-6), name


def test_every_interval_lies_around_its_measure_in_many_dimensions():
    """Were points repeated, means within would shrink and centroids move apart, by more than an interval's width."""
    texts, videos = captioned(64, 5, 512)
    measures, found = gap_measures(texts, videos), gap_intervals(texts, videos)
    for name, (low, high) in found.items():
        value = measures[name]
        assert low < value < high, name
        assert abs((low + high) / 2 - value) < 0.35 * (high - low), name


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of 120 corpora of 60 videos. The truth is a corpus of 4,000; of the distance of centroids, which grows as points
    get fewer, the mean of such small corpora."""

    def corpus(count, seed):
        video = vectors(count, 12, seed, centre=0.4).repeat_interleave(2, 0)
        return video + vectors(2 * count, 12, seed + 50_000) + 0.8 * torch.eye(12)[0], video

    corpora = [corpus(60, seed) for seed in range(100, 220)]
    truth = gap_measures(*corpus(4000, 1))
    truth["centroid_distance"] = np.mean([float(centroid_gap(*pairs).norm()) for pairs in corpora])
    found = [gap_intervals(*pairs, resamples=150) for pairs in corpora]
    for name in found[0]:
        held = np.mean([intervals[name][0] <= truth[name] <= intervals[name][1] for intervals in found])
        assert 0.87 <= held <= 0.995, name


def test_captions_of_one_video_are_drawn_together_by_default_and_by_group():
    """Pooled by its own text, a video has a vector for each text, and only groups say that they are one video."""
    texts, videos = captioned(30, 6, 32)
    texts = videos + 0.2 * (texts - videos) + 0.6 * vectors(30, 32, 7).repeat_interleave(6, 0)  # errors shared
    pooled = videos + 1e-3 * vectors(180, 32, 8)
    names = np.array([f"video {i // 6}" for i in range(180)])
    width = lambda interval: interval[1] - interval[0]  # noqa: E731
    together, grouped = gap_intervals(texts, videos)["cosine"], gap_intervals(texts, pooled, names)["cosine"]
    alone = gap_intervals(texts, pooled)["cosine"]
    assert grouped == pytest.approx(together, abs=1e-3)
    assert width(grouped) > 1.5 * width(alone)


def test_what_it_is_drawn_over_decides_not_how_groups_are_called():
    texts, videos = captioned(20, 2)
    labels = np.repeat(np.random.default_rng(0).permutation(20), 2)
    assert gap_intervals(texts, videos, labels, resamples=50) == gap_intervals(texts, videos, resamples=50)
    assert gap_intervals(texts, videos, resamples=50, seed=1) != gap_intervals(texts, videos, resamples=50)


def test_a_sample_has_intervals_around_the_samples_measure(monkeypatch):
    texts, videos = captioned(120, 1)
    exact = gap_intervals(texts, videos, resamples=200)
    monkeypatch.setattr(points, "SAMPLE_ABOVE", 60)
    found, measures = gap_intervals(texts, videos, resamples=200, seed=0), gap_measures(texts, videos, seed=0)
    for name in ("uniformity_text", "uniformity_video", "mmd"):
        assert found[name] != exact[name]
        assert found[name][0] < measures[name] < found[name][1]
    assert found["cone_text"] == exact["cone_text"]


def test_one_group_has_no_intervals_and_two_have_some():
    texts, videos = captioned(4, 2)
    assert gap_intervals(texts, videos, np.zeros(8)) == {}
    for low, high in gap_intervals(texts, videos, np.array([0, 0, 0, 0, 1, 1, 1, 1])).values():
        assert low <= high
    for seed in range(5):
        two = gap_intervals(*captioned(2, 1, seed=seed), resamples=50)
        for name in ("cone_text", "cone_video", "rmg", "mmd"):  # half of the resamples hold one video, and no value
            assert two[name][0] == pytest.approx(two[name][1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": np.arange(5)}, "one label for each of the 12 pairs"),
        ({"groups": np.zeros((12, 2))}, "one label for each of the 12 pairs"),
        ({"resamples": 0}, "from 1 to 10,000, not 0"),
        ({"resamples": 10_001}, "not 10001"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        gap_intervals(*captioned(6, 2), **options)
    with pytest.raises(InputError, match="6 texts and 5 videos"):
        gap_intervals(vectors(6), vectors(5))

"""The frontier: which settings are swept, and which point is chosen, against values made by hand."""

import numpy as np
import pytest

from analysis.comparison.features import CorpusFeatures, Part
from analysis.comparison.frontier import REFERENCE, SCALES, WEIGHTS, Point, Setting, chosen, points_of, settings_of
from analysis.comparison.frontier_figure import frontier_figure, groups
from analysis.comparison.methods import ENTRIES
from analysis.comparison.runs import Plan
from analysis.comparison.statistics import Estimate
from analysis.figures.export import figure_rows
from dits.evaluation.significance import BootstrapConfig, Difference
from dits.models.retrieval import ModelConfig
from dits.training.config import TrainingConfig


def point(sweep, value, closed, low, high):
    """A point whose difference to the best has the limits `low` and `high`."""
    ranking = {name: Estimate(50.0, 48.0, 52.0) for name in ("R@1", "R@5", "R@10", "recalls")}
    difference = Difference((low + high) / 2, low, high, 0.5)
    setting = Setting(ENTRIES["dits"], sweep, value)
    return Point(setting, ranking, Estimate(closed, closed - 0.01, closed + 0.01), difference, {})


def test_the_point_closes_most_among_those_within_the_noise():
    best = point(WEIGHTS, 0.0, 0.00, 0.0, 0.0)
    near = point(WEIGHTS, 0.3, 0.20, -2.0, 0.5)
    touching = point(SCALES, 0.5, 0.25, -3.0, 0.0)
    worse = point(WEIGHTS, 3.0, 0.90, -9.0, -1.0)
    reference = point(REFERENCE, None, 0.95, -0.5, 0.5)
    assert chosen([best, near, worse, reference]) is near
    assert chosen([best, near, touching, worse, reference]) is touching
    assert chosen([best, worse, reference]) is best
    assert [p.is_candidate for p in (best, near, touching, worse, reference)] == [True, True, True, False, False]


def test_the_sweeps_share_the_setting_without_both():
    settings = settings_of([0.1, 1.0], [0.5])
    assert [(s.sweep, s.value) for s in settings] == [
        (WEIGHTS, 0.0), (WEIGHTS, 0.1), (WEIGHTS, 1.0), (SCALES, 0.5), (REFERENCE, None), (REFERENCE, None),
    ]  # fmt: skip
    for setting in settings[:4]:
        noise = setting.entry.variant.settings["sampler.noise_scale"]
        weight = setting.entry.variant.training["alignment_weight"]
        assert (noise, weight) == ((0.0, setting.value) if setting.sweep == WEIGHTS else (setting.value, 0.0))
    assert len({setting.entry.variant.key for setting in settings}) == len(settings)


@pytest.fixture
def plan(tmp_path):
    part = Part(np.arange(6), np.array([0, 0, 1, 1, 2, 2]), np.arange(3))
    corpus = CorpusFeatures("key", "an encoder", 10.0, tmp_path, (), part, part, {"one": part}, {})
    return Plan(ModelConfig(), TrainingConfig(), corpus, "validation")


def result(setting, seed, ranks, closed):
    ranks = {"validation": {"t2v": ranks, "v2t": [1.0] * 3}}
    return {
        "mode": "frozen", "method": setting.entry.name, "seed": seed, "ranks": ranks, "best": {"epoch": 1}, "ms": {},
        "alignment": {"closed_from_frozen": closed, "closed": closed},
    }  # fmt: skip


def test_points_compare_with_the_best_of_the_sweeps(plan):
    """The reference ranks best, but is not the best setting of a sweep."""
    zero, weighted, noisy, mean, _ = settings = settings_of([1.0], [0.5])
    results = [
        result(zero, 1, [1, 1, 1, 1, 1, 20], 0.0), result(zero, 2, [1, 1, 1, 1, 1, 20], 0.1),
        result(weighted, 1, [1, 1, 20, 20, 20, 20], 0.5), result(weighted, 2, [1, 1, 20, 20, 20, 20], 0.7),
        result(noisy, 1, [20] * 6, -0.1),
        result(mean, 1, [1] * 6, 0.0),
    ]  # fmt: skip
    points = points_of(plan, settings, results, BootstrapConfig(resamples=200))
    assert [p.setting for p in points] == [zero, weighted, noisy, mean]  # X-Pool has no result
    assert [p.ranking["R@1"].value for p in points] == pytest.approx([500 / 6, 200 / 6, 0, 100])
    assert [p.closed.value for p in points] == pytest.approx([0.05, 0.6, -0.1, 0.0])
    assert [p.to_best.value for p in points] == pytest.approx([0, -150, -250, 50])
    assert points[1].to_references["Mean pooling"].value == pytest.approx(-200)
    assert points[0].is_candidate
    assert not points[2].is_candidate  # at rank 20 for all captions


def test_the_figure_has_every_point_in_both_panels():
    points = [
        point(WEIGHTS, 0.0, 0.0, 0.0, 0.0), point(WEIGHTS, 1.0, 0.4, -9.0, -1.0), point(SCALES, 0.5, -0.1, -1.0, 1.0),
        point(REFERENCE, None, 0.0, 0.0, 0.0),
    ]  # fmt: skip
    best = chosen(points)
    traces = list(groups(points, best).values())
    assert [len(members) for members in traces] == [2, 2, 1, 1]  # the first sweep, the second with its start, ...
    _, rows = figure_rows(frontier_figure(points, best))
    assert sorted({x for _, x, *_ in rows}) == pytest.approx([-10, 0, 40])
    assert len(rows) == 2 * 6

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from analysis.gap import gap_measures, relative_modality_gap
from dits.errors import InputError


def points(count=12, dim=8, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_identical_sets_have_no_gap():
    measures = gap_measures(points(), 3 * points())
    assert measures.cosine == pytest.approx(1)
    assert measures.l1 == pytest.approx(0, abs=1e-6)
    assert measures.l2 == pytest.approx(0, abs=1e-6)
    assert measures.centroid_distance == pytest.approx(0, abs=1e-6)
    assert measures.rmg == pytest.approx(0, abs=1e-6)


def test_known_values_in_the_plane():
    texts, videos = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    measures = gap_measures(texts, videos)
    assert measures.cosine == pytest.approx(0)
    assert measures.l1 == pytest.approx(2)
    assert measures.l2 == pytest.approx(math.sqrt(2))
    assert measures.centroid_distance == pytest.approx(1)  # (1/2, 1/2) and (-1/2, 1/2)
    assert measures.rmg == pytest.approx(0.5)  # every distance, within and across, is 1/2


def test_cone_and_uniformity_of_known_points():
    """Three unit vectors at right angles: cosine 0, squared distance 2; one direction twice is one point."""
    axes = torch.eye(3)
    measures = gap_measures(axes, torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]]))
    assert measures.text_cone == pytest.approx(0)
    assert measures.text_uniformity == pytest.approx(-4)
    assert measures.video_cone == pytest.approx(0)
    narrow = gap_measures(axes, torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [1.0, 0, 0]]))
    assert narrow.video_cone == pytest.approx(0.8)
    assert narrow.video_uniformity == pytest.approx(-0.8)


def test_mean_squared_distance_follows_from_the_mean_cosine():
    texts, videos = F.normalize(points(seed=1), dim=-1), F.normalize(points(seed=2), dim=-1)
    squared = float(((texts - videos) ** 2).sum(dim=-1).mean())
    assert squared == pytest.approx(2 - 2 * gap_measures(texts, videos).cosine, abs=1e-5)


def test_rmg_equals_its_definition_pair_by_pair():
    texts, videos = F.normalize(points(6, seed=1), dim=-1), F.normalize(points(6, seed=2), dim=-1)
    distance = lambda a, b: (1 - float(a @ b)) / 2  # noqa: E731
    paired = np.mean([distance(texts[i], videos[i]) for i in range(6)])
    inside = [np.mean([distance(x[i], x[j]) for i in range(6) for j in range(6) if i != j]) for x in (texts, videos)]
    expected = paired / (paired + sum(inside) / 2)
    assert relative_modality_gap(texts, videos) == pytest.approx(expected, abs=1e-6)


def test_a_video_with_several_captions_counts_once_within_its_modality():
    texts, videos = F.normalize(points(6, seed=1), dim=-1), F.normalize(points(3, seed=2), dim=-1)
    distance = lambda a, b: (1 - float(a @ b)) / 2  # noqa: E731
    inside = [
        np.mean([distance(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (texts, videos)
    ]
    paired = np.mean([distance(texts[i], videos[i // 2]) for i in range(6)])
    expected = paired / (paired + sum(inside) / 2)
    assert relative_modality_gap(texts, videos.repeat_interleave(2, 0)) == pytest.approx(expected, abs=1e-6)


def test_refuses_a_single_pair():
    with pytest.raises(InputError, match="at least two"):
        gap_measures(points(1), points(1))

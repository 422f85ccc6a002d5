import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from analysis.gap import gap_measures, relative_modality_gap
from analysis.trajectory import step_reports
from dits.errors import InputError
from dits.evaluation import evaluate_scores
from dits.model import ModelConfig, RetrievalModel
from dits.network import AlignmentConfig
from dits.pooling import PoolingConfig
from dits.sampler import SamplerConfig


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


def test_step_reports_start_at_the_text_and_end_at_what_retrieval_uses():
    torch.manual_seed(0)
    network = AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False)
    config = ModelConfig("dits", PoolingConfig(dim=32), SamplerConfig(steps=3), network)
    model = RetrievalModel(config).eval()
    texts, frames, video_of = points(10, 32), points(5 * 4, 32, seed=3).view(5, 4, 32), np.arange(10) % 5
    reports = step_reports(model, texts, frames, video_of)
    assert [report.timestep for report in reports] == [3, 2, 1, 0]
    assert reports[0].step_length == 0
    assert all(report.step_length > 0 for report in reports[1:])
    final = evaluate_scores(model.gallery(frames).scores(texts), video_of)["t2v"]
    assert reports[-1].retrieval.as_dict() == final

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import analysis.measures.trajectory
from analysis.flow import flow_of, with_sampling
from analysis.measures.trajectory import (
    QUANTILES,
    bands,
    largest_step_share,
    path_measures,
    ranks_by_step,
    sample_texts,
    step_reports,
)
from dits.common.errors import InputError
from dits.evaluation.metrics import evaluate_scores
from dits.models.pooling import PoolingConfig, mean_pool
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from tests.helpers.flows import VIDEO_OF, a_model, frames, points


@pytest.fixture
def model():
    return a_model()


@pytest.fixture(name="frames")
def frames_of_five_videos():
    return frames()


@pytest.fixture
def flow(model, frames):
    return flow_of(model, points(10), frames, VIDEO_OF)


def test_steps_start_at_the_text_and_end_at_what_retrieval_uses(model, frames, flow):
    reports = step_reports(flow)
    assert [report.step for report in reports] == [0, 1, 2, 3]
    assert [report.timestep for report in reports] == [3, 2, 1, 0]
    final = evaluate_scores(build_gallery(model, frames).scores(points(10)), VIDEO_OF)["t2v"]
    assert reports[-1].t2v.as_dict() == final
    with torch.inference_mode():
        unmoved = model.pooling(points(10), frames)
        start = F.cosine_similarity(points(10)[:, None], unmoved, dim=-1).numpy()
    assert reports[0].t2v.as_dict() == evaluate_scores(start, VIDEO_OF)["t2v"]


def test_path_measures_match_their_descriptions(frames, flow):
    measured = path_measures(flow)
    videos = mean_pool(frames).numpy()
    videos /= np.linalg.norm(videos, axis=1, keepdims=True)
    path = flow.points.numpy()
    path = path / np.linalg.norm(path, axis=-1, keepdims=True)
    for step in range(4):
        for text in range(10):
            own = videos[VIDEO_OF[text]]
            others = np.delete(videos, VIDEO_OF[text], axis=0)
            expected = {
                "step_length": np.linalg.norm(path[step, text] - path[max(0, step - 1), text]),
                "cosine_to_start": path[step, text] @ path[0, text],
                "cosine_to_target": path[step, text] @ own,
                "cosine_to_distractor": (others @ path[step, text]).max(),
                "gap_closed": 1 - np.linalg.norm(own - path[step, text]) / np.linalg.norm(own - path[0, text]),
                "rank": ranks_by_step(flow, text)[step, VIDEO_OF[text]],
            }
            assert {name: values[step, text] for name, values in measured.items()} == pytest.approx(expected, abs=1e-5)


def test_measuring_in_blocks_of_texts_changes_nothing(flow, monkeypatch):
    whole, reports = path_measures(flow), step_reports(flow)
    monkeypatch.setattr(analysis.measures.trajectory, "_BLOCK_SCORES", 15)
    assert all(np.allclose(path_measures(flow)[name], values, atol=1e-6) for name, values in whole.items())
    assert [report.t2v for report in step_reports(flow)] == [report.t2v for report in reports]


def test_a_path_straight_into_the_video_closes_the_whole_gap(flow):
    start, end = F.normalize(flow.points[0], dim=-1), F.normalize(flow.own_videos, dim=-1)
    straight = torch.stack([start + share * (end - start) for share in (0, 0.5, 1)])
    measured = path_measures(flow.with_points(straight))
    assert measured["gap_closed"][0] == pytest.approx(0, abs=1e-6)
    assert measured["gap_closed"][2] == pytest.approx(1, abs=1e-3)
    assert measured["cosine_to_target"][2] == pytest.approx(1, abs=1e-5)


def test_bands_are_quantiles_over_texts():
    values = np.stack([np.arange(101.0), 2 * np.arange(101.0)])
    assert bands(values) == pytest.approx(np.outer([1, 2], np.array(QUANTILES) * 100))


def test_every_step_ranks_every_video_once(flow):
    ranks = ranks_by_step(flow, 4)
    assert ranks.shape == (4, 5)
    assert (np.sort(ranks, axis=1) == np.arange(1, 6)).all()
    with pytest.raises(InputError, match="no text 10"):
        ranks_by_step(flow, 10)


def test_an_even_path_has_no_largest_step():
    angles = torch.linspace(0, 1, 11)
    arc = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None]
    jump = arc.clone()
    jump[1:-1] = arc[0]
    assert largest_step_share(arc) == pytest.approx([0.1], abs=1e-5)
    assert largest_step_share(jump) == pytest.approx([1.0])
    assert largest_step_share(arc[:1]) == pytest.approx([0.0])


def test_the_video_side_pooled_is_what_each_text_pools(model, frames):
    pooled = flow_of(model, points(10), frames, VIDEO_OF, video_side="pooled").own_videos
    with torch.inference_mode():
        expected = torch.stack([model.pooling(points(10), frames)[i, VIDEO_OF[i]] for i in range(10)])
    assert torch.allclose(pooled, expected, atol=1e-5)
    with pytest.raises(InputError, match="one of mean, pooled"):
        flow_of(model, points(10), frames, VIDEO_OF, video_side="sum")


def test_other_steps_noise_and_seeds_keep_the_weights(model):
    longer = with_sampling(model, steps=7)
    assert longer.trajectory(points(2)).shape == (8, 2, 32)
    noisy = [with_sampling(model, noise=1.0, seed=seed).trajectory(points(2)) for seed in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert torch.equal(noisy[0][0], points(2))
    quiet = with_sampling(model, noise=0.0, seed=5)
    assert torch.equal(quiet.trajectory(points(2)), model.trajectory(points(2)))
    prior = RetrievalModel(ModelConfig("prior", PoolingConfig(dim=32))).eval()
    ends = [with_sampling(prior, seed=seed).trajectory(points(2))[-1] for seed in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    mean = RetrievalModel(ModelConfig("mean", PoolingConfig(dim=32)))
    with pytest.raises(InputError, match="no T' or noise"):
        with_sampling(mean, steps=3)


def test_a_trajectory_from_noise_is_pooled_by_its_text_and_measured_from_it(frames):
    model = a_model("diffusion")
    flow = flow_of(model, points(10), frames, VIDEO_OF)
    with torch.inference_mode():
        noise = flow.points[0]
        pooled = model.pooling(points(10), frames)
        expected = F.cosine_similarity(noise[:, None], pooled, dim=-1).numpy()
    assert not torch.allclose(noise, points(10), atol=0.1)
    assert flow.scores_at(0) == pytest.approx(expected, abs=1e-5)
    cosines = F.cosine_similarity(flow.points, points(10)[None], dim=-1).numpy()
    assert path_measures(flow)["cosine_to_start"] == pytest.approx(cosines, abs=1e-5)
    whole = flow.starting_at_text()
    assert torch.equal(whole.points, torch.cat([points(10)[None], flow.points]))
    assert torch.equal(whole.starting_at_text().points, whole.points)


def test_a_trajectory_may_start_at_its_text_with_another_length(frames):
    flow = flow_of(a_model(normalise_input=True), points(10), frames, VIDEO_OF)
    assert not torch.equal(flow.points[0], points(10))
    assert len(flow.starting_at_text().points) == 4


def test_fewer_texts_are_sampled_if_there_are_many_videos(flow, monkeypatch):
    assert sample_texts(flow) is flow
    monkeypatch.setattr(analysis.measures.trajectory, "_MAX_SCORES", 5 * 4 + 2)
    some = sample_texts(flow, seed=1)
    assert len(some.texts) == 4
    assert len(some.videos) == 5
    rows = [flow.texts.index(text) for text in some.texts]
    assert torch.equal(some.points, flow.points[:, rows])
    assert some.video_of.tolist() == VIDEO_OF[rows].tolist()

"""The points of a flow on a map, their names, and their trajectories."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import analysis.figures.map_panels
from analysis.figures.map_panels import DrawnFlow, drawn_flow, map_panels, video_names
from analysis.flow import flow_of
from dits.common.errors import InputError
from tests.helpers.flows import a_flow, a_model, frames, points


@pytest.fixture(scope="module")
def flow():
    return a_flow(captions=tuple(f"sentence {index}" for index in range(10)))


@pytest.fixture(scope="module")
def drawn(flow):
    return drawn_flow(flow)


def test_everything_is_a_landmark_where_there_is_room(flow, drawn):
    assert np.array_equal(drawn.cloud.texts, points(10).numpy())
    assert np.array_equal(drawn.cloud.videos, flow.videos.numpy())
    assert drawn.labels.texts == flow.texts
    assert np.array_equal(drawn.labels.video_of, flow.video_of)


def test_trajectories_belong_to_the_texts_of_their_labels(flow, drawn):
    assert drawn.labels.paths == (0, 1, 2, 3, 4)  # the first text of each of the five videos
    assert drawn.labels.path_names == flow.texts[:5]
    for path, text in enumerate(drawn.labels.paths):
        assert np.array_equal(drawn.cloud.paths[:, path], flow.points[:, text].numpy())


@pytest.mark.parametrize(("count", "texts"), [(0, ()), (1, (0,)), (2, (0, 4)), (3, (0, 2, 4)), (99, (0, 1, 2, 3, 4))])
def test_trajectories_are_spread_over_the_videos(flow, count, texts):
    assert drawn_flow(flow, paths=count).labels.paths == texts


def test_a_method_without_steps_has_no_trajectories():
    still = drawn_flow(a_flow(a_model("xpool")))
    assert still.labels.paths == ()
    assert still.cloud.paths.shape[1] == 0


def test_a_trajectory_from_noise_does_not_move_its_text():
    assert np.array_equal(drawn_flow(a_flow(a_model("diffusion"))).cloud.texts, points(10).numpy())


def test_of_many_texts_a_sample_is_drawn_with_their_videos(flow, monkeypatch):
    monkeypatch.setattr(analysis.figures.map_panels, "MAX_LANDMARKS", 3)
    sample = drawn_flow(flow, thumbnails=[f"/{video}.jpg" for video in range(5)])
    assert len(sample.cloud.texts) == 3
    chosen = [flow.texts.index(text) for text in sample.labels.texts]
    assert chosen == sorted(set(chosen))
    videos = sorted({int(flow.video_of[text]) for text in chosen})
    assert np.array_equal(sample.cloud.videos, flow.videos[videos].numpy())
    assert sample.labels.thumbnails == tuple(f"/{video}.jpg" for video in videos)
    for place, text in enumerate(chosen):
        assert np.array_equal(sample.cloud.texts[place], points(10)[text].numpy())
        assert videos[sample.labels.video_of[place]] == flow.video_of[text]
    for path, text in enumerate(sample.labels.paths):
        assert np.array_equal(sample.cloud.paths[:, path], flow.points[:, chosen[text]].numpy())
    assert drawn_flow(flow).labels.texts == sample.labels.texts
    assert {drawn_flow(flow, seed=seed).labels.texts for seed in range(5)} != {sample.labels.texts}


def test_videos_that_fit_are_all_drawn_though_texts_are_sampled(flow, monkeypatch):
    monkeypatch.setattr(analysis.figures.map_panels, "MAX_LANDMARKS", 5)
    sample = drawn_flow(flow)
    assert (len(sample.cloud.texts), len(sample.cloud.videos)) == (5, 5)


def test_videos_are_called_by_their_first_text_or_their_id(flow):
    assert video_names(flow) == [f"sentence {index}" for index in range(5)]
    assert video_names(flow.select_texts(np.array([6, 1]))) == [
        "video 0",
        "sentence 6",
        "video 2",
        "video 3",
        "video 4",
    ]


class TestPoints:
    def test_each_kind_has_its_name_and_vector(self, flow, drawn):
        name, vector = drawn.point("text", 7)
        assert (name, vector.tolist()) == ("sentence 7", points(10)[7].tolist())
        name, vector = drawn.point("video", 3)
        assert (name, vector.tolist()) == ("sentence 3", flow.videos[3].tolist())
        for step, called in ((0, "t"), (3, "v₀")):
            name, vector = drawn.point("path", 2, step)
            assert (name, vector.tolist()) == (f"sentence 2, step {called}", flow.points[step, 2].tolist())
        with pytest.raises(InputError, match="there is no 4"):
            drawn.point("path", 2, 4)

    def test_each_kind_has_its_video(self, drawn):
        assert [drawn.video_of("text", index) for index in range(10)] == [0, 1, 2, 3, 4] * 2
        assert drawn.video_of("video", 4) == 4
        assert drawn.video_of("path", 3) == 3

    @pytest.mark.parametrize("ask", [DrawnFlow.point, DrawnFlow.video_of])
    @pytest.mark.parametrize(
        ("kind", "index"), [("text", 10), ("text", -1), ("video", 5), ("video", -1), ("path", 5), ("moon" * 99, 0)]
    )
    def test_points_that_the_map_lacks(self, drawn, ask, kind, index):
        with pytest.raises(InputError, match=f"no {kind[:20]} {index}") as error:
            ask(drawn, kind, index)
        assert len(str(error.value)) < 100

    def test_further_trajectories_come_last_with_their_ends(self, drawn):
        paths = np.stack([points(4, seed=8).numpy(), points(4, seed=9).numpy()], axis=1)
        more = drawn.with_paths(paths, ["a dog", "a cat"], [3, 1])
        assert np.array_equal(more.cloud.paths[:, -2:], paths)
        assert more.labels.path_names[-2:] == ("a dog", "a cat")
        assert more.labels.paths == (*drawn.labels.paths, -1, -1)
        assert [more.video_of("path", path) for path in (4, 5, 6)] == [4, 3, 1]
        assert more.point("path", 6, 3)[1].tolist() == paths[3, 1].tolist()


def test_maps_say_what_stands_in_for_what(drawn, tmp_path):
    panels = map_panels(drawn, ("linear", "pca", "umap"), folder=tmp_path)
    assert [panel.name for panel in panels] == ["map-linear", "map-pca", "map-umap"]
    assert panels[2].heading == panels[0].heading
    assert "15 texts and videos are too few" in panels[2].note
    assert all("This map keeps neighbourhoods" in panel.note for panel in panels)
    assert len(list(tmp_path.iterdir())) >= 3  # cached


def test_without_a_second_text_there_is_no_map():
    flow = flow_of(a_model(), points(1), frames(), np.zeros(1, dtype=int))
    with pytest.raises(InputError, match="at least two texts"):
        drawn_flow(flow)


def test_whole_numbers_are_no_embeddings(flow):
    with pytest.raises(InputError, match="floating-point"):
        drawn_flow(replace(flow, queries=torch.ones(10, 32, dtype=torch.int64)))

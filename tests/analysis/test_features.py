import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import analysis.features
from analysis.features import read_features
from analysis.measures.trajectory import step_reports
from dits.common.errors import InputError
from dits.evaluation.metrics import evaluate_scores


def points(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}, path)
    return path


@pytest.mark.parametrize("name", ["features.npz", "features.safetensors"])
def test_reads_texts_videos_and_steps_from_both_formats(tmp_path, name):
    text, video, steps = points(6, 8), points(3, 8, seed=1), points(2, 6, 8, seed=2)
    flow = read_features(write(tmp_path / name, text=text, video=video, pairs=np.arange(6) % 3, text_steps=steps))
    assert np.array_equal(flow.points.numpy(), np.concatenate([text[None], steps]))
    assert np.array_equal(flow.videos.numpy(), video)
    assert np.array_equal(flow.own_videos.numpy(), video[np.arange(6) % 3])
    cosines = steps[-1] @ video.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (steps[-1], video)))
    expected = evaluate_scores(cosines, np.arange(6) % 3)["t2v"]
    assert step_reports(flow)[-1].t2v.as_dict() == pytest.approx(expected)


def test_steps_that_begin_with_the_text_are_taken_as_they_are(tmp_path):
    text = points(6, 8)
    steps = np.stack([text, points(6, 8, seed=2)])
    flow = read_features(write(tmp_path / "f.npz", text=text, video=points(6, 8, seed=1), text_steps=steps))
    assert np.array_equal(flow.points.numpy(), steps)
    assert flow.timesteps == [1, 0]


def test_pairs_as_rows_repeat_texts_and_leave_others_out(tmp_path):
    text, video = points(4, 8), points(5, 8, seed=1)
    rows = np.array([[0, 3], [0, 4], [2, 1]])
    flow = read_features(write(tmp_path / "f.npz", text=text, video=video, pairs=rows))
    assert np.array_equal(flow.points[0].numpy(), text[[0, 0, 2]])
    assert flow.video_of.tolist() == [3, 4, 1]


def test_frames_are_pooled_and_half_precision_is_read(tmp_path):
    frames = points(3, 4, 8).astype(np.float16)
    flow = read_features(write(tmp_path / "f.safetensors", text=points(3, 8).astype(np.float16), video=frames))
    unit = frames.astype(np.float32) / np.linalg.norm(frames.astype(np.float32), axis=-1, keepdims=True)
    mean = unit.mean(axis=1)
    cosines = (
        (flow.videos.numpy() * mean).sum(-1) / np.linalg.norm(flow.videos, axis=-1) / np.linalg.norm(mean, axis=-1)
    )
    assert cosines == pytest.approx(1, abs=1e-3)


GOOD = {"text": points(4, 8), "video": points(4, 8, seed=1)}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"text": None}, "lacks the key 'text'"),
        ({"video": None}, "lacks the key 'video'"),
        ({"texts": points(4, 8)}, "the unknown key 'texts': the keys are"),
        ({"video": points(5, 8)}, "4 texts and 5 videos"),
        ({"video": points(4, 9)}, "8 dimensions and video 9"),
        ({"text": np.full((4, 8), np.nan, np.float32)}, "NaN or infinite"),
        ({"video": np.full((4, 8), np.inf, np.float32)}, "NaN or infinite"),
        ({"text": np.ones((4, 8), np.int64)}, "text holds int64"),
        ({"text": points(8)}, "the shape"),
        ({"text": points(0, 8)}, "the shape"),
        ({"pairs": np.array([0, 1, 2, 4])}, "a video outside 0 to 3"),
        ({"pairs": np.array([0, -1, 2, 3])}, "a video outside 0 to 3"),
        ({"pairs": np.array([[7, 0]])}, "a text outside 0 to 3"),
        ({"pairs": points(4)}, "pairs must be whole numbers"),
        ({"pairs": np.arange(3)}, "pairs must be whole numbers"),
        ({"text_steps": points(2, 3, 8)}, "text_steps must be"),
    ],
)
@pytest.mark.parametrize("name", ["f.npz", "f.safetensors"])
def test_what_does_not_fit_is_named(tmp_path, name, changes, sentence):
    arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
    with pytest.raises(InputError, match=sentence):
        read_features(write(tmp_path / name, **arrays))


class Evil:
    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


def test_pickled_arrays_are_refused_without_being_run(tmp_path):
    np.savez(tmp_path / "f.npz", text=np.array([Evil()], dtype=object), video=GOOD["video"])
    with pytest.raises(InputError, match="pickled objects are not read"):
        read_features(tmp_path / "f.npz")
    (tmp_path / "g.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a safetensors or npz file"):
        read_features(tmp_path / "g.npz")
    assert not Evil.ran


def test_what_is_no_file_of_embeddings_is_refused(tmp_path):
    write(tmp_path / "whole.npz", **GOOD)
    whole = (tmp_path / "whole.npz").read_bytes()
    for name, content in {"empty": b"", "text": b"hello", "cut.npz": whole[:-30], "spoilt.npz": _spoilt(whole)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            read_features(tmp_path / name)
    with pytest.raises(InputError, match="There is no file"):
        read_features(tmp_path)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_does(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        array = io.BytesIO()
        np.save(array, np.zeros((1000, 1000), np.float32))
        archive.writestr("text.npy", array.getvalue())
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    monkeypatch.setattr(analysis.features, "MAX_BYTES", 2**20)
    with pytest.raises(InputError, match="unpacks to"):
        read_features(tmp_path / "bomb.npz")


def _spoilt(whole):
    middle = len(whole) // 3
    return whole[:middle] + bytes(8) + whole[middle + 8 :]

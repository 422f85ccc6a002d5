"""`index` and `search --corpus`: what a user types, and what comes back."""

import csv
import json
import os

import numpy as np
import pytest
from safetensors import safe_open

from dits.cli.parser import main
from dits.corpora.corpus import FRAMES
from tests.helpers.videos import stamp, write_video


@pytest.fixture
def command(tmp_path, tiny_folder, monkeypatch, capsys):
    """Runs a command on an index of the test's own; its exit code, what it prints, and what it says of errors."""
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))

    def run(*arguments, index=True):
        where = ["--index", str(tmp_path / "index")] if index else []
        code = main([*arguments, *where, "--encoder", f"local-dir:{tiny_folder}"])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "videos"
    path.mkdir()
    for number in range(3):
        frames = [stamp(40 * number + n, 64, 48) for n in range(30)]
        write_video(path / f"{number}.mp4", frames, fps=5, size=(64, 48))  # six seconds
    (path / "broken.mp4").write_text("no video")
    return path


def status(command):
    code, printed, _ = command("index", "status", "--json")
    assert code == 0
    return json.loads(printed)


def test_from_a_folder_to_a_ranking(command, folder, tmp_path):
    code, printed, errors = command("index", "add", str(folder), "--segment", "2s", "--workers", "1")
    assert code == 0
    assert "3 videos added (9 segments), 0 unchanged, 0 copies, 1 failed, 0 missing." in printed
    assert "9 segments" in errors
    assert "a second" in errors
    found = status(command)
    assert (found["videos"], found["segments"]) == (3, 9)
    [failed] = found["failed"]
    assert failed["path"] == str(folder / "broken.mp4")
    assert "not a video that can be read" in failed["reason"]

    search = ["search", "a sentence", "--corpus", str(tmp_path / "index"), "--method", "mean", "--top", "9"]
    code, printed, _ = command(*search, "--json", index=False)
    assert code == 0
    hits = json.loads(printed)["results"]
    assert [hit["rank"] for hit in hits] == list(range(1, 10))
    assert sorted(hit["score"] for hit in hits) == [hit["score"] for hit in hits][::-1]
    assert {(hit["path"], hit["start"], hit["end"]) for hit in hits} == {
        (str(folder / f"{number}.mp4"), start, start + 2.0) for number in range(3) for start in (0.0, 2.0, 4.0)
    }
    assert all(hit["start"] <= hit["best_moment"] < hit["end"] for hit in hits)
    code, printed, _ = command(*search, index=False)
    assert str(folder / "0.mp4") in printed


def test_status_for_people_and_removal(command, folder):
    command("index", "add", str(folder), "--segment", "whole", "--workers", "1")
    _, printed, _ = command("index", "status")
    assert "3 videos in 3 segments; 1 failed, 0 copies of others, 0 missing" in printed
    assert f"{folder / 'broken.mp4'}: " in printed
    code, printed, _ = command("index", "remove", str(folder / "1.mp4"))
    assert code == 0
    assert "Removed 1 file" in printed
    assert status(command)["videos"] == 2
    code, printed, _ = command("index", "update", "--workers", "1")
    assert code == 0
    assert "1 video added (1 segment), 3 unchanged" in printed  # the folder is still a source


def test_rows_and_embeddings_are_exported(command, folder, tmp_path):
    command("index", "add", str(folder), "--segment", "whole", "--workers", "1")
    code, _, _ = command("index", "export", "--out", str(tmp_path / "rows.csv"))
    assert code == 0
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] != []
    assert {row["path"] for row in rows} == {str(folder / f"{number}.mp4") for number in range(3)}
    code, _, _ = command("index", "export", "--out", str(tmp_path / "all.safetensors"))
    assert code == 0
    with safe_open(tmp_path / "all.safetensors", framework="np") as file:
        listed = json.loads(file.metadata()["rows"])
        frames, means = file.get_tensor("frames").astype(np.float32), file.get_tensor("video")
    assert [row["id"] for row in listed] == [row["id"] for row in rows]
    assert frames.shape == (3, FRAMES, 32)
    pooled = (frames / np.linalg.norm(frames, axis=-1, keepdims=True)).mean(axis=1)
    pooled /= np.linalg.norm(pooled, axis=-1, keepdims=True)
    np.testing.assert_allclose(means, pooled, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index", "status"), "holds no videos embedded by"),
        (("index", "update"), "holds no videos embedded by"),
        (("index", "add", "/nowhere/at/all"), "no file or folder /nowhere/at/all"),
        (("index", "add", ".", "--segment", "often"), "often"),
        (("index", "add", ".", "--workers", "-1"), "workers"),
        (("index", "add", ".", "--seconds", "0"), "seconds"),
        (("index", "add", ".", "--precision", "fp8"), "precision"),
        (("index", "export", "--out", "rows.xml"), "rows.xml is neither"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, printed, errors = command(*arguments)
    assert (code, printed) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_an_index_is_no_corpus_to_evaluate(command, folder, tmp_path):
    command("index", "add", str(folder / "0.mp4"), "--workers", "1")
    code, _, errors = command("evaluate", "--corpus", str(tmp_path / "index"), index=False)
    assert code == 2
    assert "is an index: its videos have no captions" in errors


def test_an_index_without_videos_is_said_to_be_empty(command, folder, tmp_path):
    command("index", "add", str(folder / "broken.mp4"), "--workers", "1")
    code, _, errors = command("search", "x", "--corpus", str(tmp_path / "index"), "--method", "mean", index=False)
    assert code == 2
    assert "holds no videos yet" in errors


def test_names_that_are_no_text_are_printed(command, tmp_path):
    os.mkdir(folder := os.path.join(os.fsencode(tmp_path), b"odd"))
    video = write_video(tmp_path / "plain.mp4", 10, size=(64, 48))
    os.replace(video, os.path.join(folder, b"\xff\n'.mp4"))
    command("index", "add", os.fsdecode(folder), "--workers", "1")
    search = ["search", "x", "--corpus", str(tmp_path / "index"), "--method", "mean"]
    code, printed, _ = command(*search, index=False)
    assert code == 0
    assert "\N{REPLACEMENT CHARACTER}" in printed
    code, printed, _ = command(*search, "--json", index=False)
    assert os.fsencode(json.loads(printed)["results"][0]["path"]) == os.path.join(folder, b"\xff\n'.mp4")


def test_without_a_name_the_index_lies_in_the_users_data_folder(command, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert command("index", "add", str(folder / "0.mp4"), index=False)[0] == 0
    assert str(tmp_path / "data") in command("index", "status", index=False)[1]
    found = command("search", "stripes", "--corpus", "index", "--method", "mean", "--top", "1", index=False)
    assert (found[0], str(folder / "0.mp4") in found[1]) == (0, True)

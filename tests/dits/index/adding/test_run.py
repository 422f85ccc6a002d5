"""Adding videos to an index: what is stored, skipped, replaced, marked and recorded."""

import os
import shutil
import threading

import numpy as np
import pytest
import torch

from dits.common.errors import InputError
from dits.corpora.corpus import FRAMES, Clip
from dits.corpora.embeddings import embed_clips
from dits.index.adding.config import AddConfig
from dits.index.adding.embedding import SegmentEncoder
from dits.index.adding.prefetch import Prefetcher
from dits.index.adding.reader import read_file
from dits.index.adding.run import add_videos, remove_videos, update_index
from dits.index.store import VideoIndex
from tests.helpers.videos import stamp, write_sound, write_video

WHOLE = AddConfig(segment="whole", workers=1)
TWO_SECONDS = AddConfig(segment="2s", workers=1)


@pytest.fixture
def index(tmp_path, tiny_encoder):
    return VideoIndex.create(str(tmp_path / "index"), tiny_encoder)


@pytest.fixture
def folder(tmp_path):
    """Three videos, one of them in a folder below, and a file that is none."""
    path = tmp_path / "videos"
    (path / "below").mkdir(parents=True)
    write_video(path / "a.mp4", 15, size=(64, 48))
    write_video(path / "b.mp4", [stamp(n, 64, 48) for n in range(20, 40)], size=(64, 48))
    write_video(path / "below" / "c.mkv", [stamp(n, 64, 48) for n in range(50, 60)], size=(64, 48))
    (path / "notes.txt").write_text("no video")
    return path


def paths(index, status="ok"):
    return sorted(os.path.basename(path).decode() for path, file in index.files().items() if file.status == status)


def test_videos_are_stored_with_the_embeddings_that_a_corpus_of_them_has(index, folder, tiny_encoder):
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (report.added, report.segments, report.failed, report.unchanged) == (3, 3, 0, 0)
    rows = index.rows(["id", "path", "start", "end", "frames", "mean", "times", "thumbnail"]).to_pylist()
    assert len(rows) == 3
    for row in rows:
        clip = Clip("x", _path(row["path"]), "test", "g", ())
        frames, times = embed_clips([clip], tiny_encoder)
        stored = (
            torch.tensor(row["frames"]).float().reshape(FRAMES, -1)
        )  # of Python's numbers or, by older Arrow, NumPy's
        torch.testing.assert_close(stored, frames[0], rtol=0, atol=0)
        np.testing.assert_allclose(row["times"], times[0], atol=1e-6)
        unit = torch.nn.functional.normalize(frames[0], dim=-1).mean(dim=0)
        torch.testing.assert_close(torch.tensor(row["mean"]).float(), unit / unit.norm(), atol=1e-3, rtol=0)
        assert row["thumbnail"][:3] == b"\xff\xd8\xff"


def test_what_is_unchanged_is_not_read_again(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    version = index.version
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (report.added, report.unchanged) == (0, 3)
    assert index.version == version


def test_a_touched_file_is_hashed_and_not_embedded_again(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    os.utime(folder / "a.mp4", ns=(1, 1))
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (report.segments, report.added) == (0, 0)
    assert index.files()[os.fsencode(folder / "a.mp4")].mtime == 1
    assert add_videos(index, tiny_encoder, [str(folder)], WHOLE).unchanged == 3


def test_a_changed_file_is_replaced(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    before = set(index.rows(["id"])["id"].to_pylist())
    write_video(folder / "a.mp4", [stamp(n, 64, 48) for n in range(100, 130)], size=(64, 48))
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    after = set(index.rows(["id"])["id"].to_pylist())
    assert (report.added, report.unchanged) == (1, 2)
    assert len(after) == 3
    assert len(after & before) == 2


def test_a_file_that_is_broken_by_a_change_is_recorded_and_its_old_content_is_gone(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    (folder / "a.mp4").write_bytes(b"no longer a video")
    assert add_videos(index, tiny_encoder, [str(folder)], WHOLE).failed == 1
    assert paths(index) == ["b.mp4", "c.mkv"]
    assert paths(index, "failed") == ["a.mp4"]


def test_files_that_vanish_are_marked_and_found_again_without_embedding(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    (folder / "b.mp4").rename(folder.parent / "elsewhere")
    assert update_index(index, tiny_encoder, WHOLE).missing == 1
    assert paths(index, "missing") == ["b.mp4"]
    assert index.counts()["segments"] == 2
    (folder.parent / "elsewhere").rename(folder / "b.mp4")
    report = update_index(index, tiny_encoder, WHOLE)
    assert (report.segments, report.missing) == (0, 0)
    assert paths(index) == ["a.mp4", "b.mp4", "c.mkv"]


def test_a_moved_file_keeps_its_embeddings(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    (folder / "a.mp4").rename(folder / "below" / "moved.mp4")
    report = update_index(index, tiny_encoder, WHOLE)
    assert (report.segments, report.missing) == (0, 0)
    assert paths(index) == ["b.mp4", "c.mkv", "moved.mp4"]


def test_copies_are_noted_and_searched_once(index, folder, tiny_encoder):
    shutil.copy(folder / "a.mp4", folder / "z copy.mp4")
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (report.added, report.duplicates) == (3, 1)
    [copy] = (file for file in index.files().values() if file.status == "duplicate")
    assert "same content as" in copy.reason
    assert index.counts() == {"videos": 3, "segments": 3, "failed": 0, "duplicate": 1, "missing": 0}
    original = {"a.mp4", "z copy.mp4"} - {os.path.basename(copy.path).decode()}
    (folder / original.pop()).unlink()
    report = update_index(index, tiny_encoder, WHOLE)
    assert (report.segments, report.missing) == (0, 0)
    assert index.counts() == {"videos": 3, "segments": 3, "failed": 0, "duplicate": 0, "missing": 0}


def test_long_videos_are_cut(index, tmp_path, tiny_encoder):
    write_video(tmp_path / "long.mp4", [stamp(n, 64, 48) for n in range(50)], fps=5, size=(64, 48))  # 10 seconds
    report = add_videos(index, tiny_encoder, [str(tmp_path / "long.mp4")], TWO_SECONDS)
    assert (report.added, report.segments) == (1, 5)
    rows = index.rows(["id", "start", "end", "times", "duration"]).to_pylist()
    assert [(row["start"], row["end"]) for row in rows] == [(n, n + 2) for n in range(0, 10, 2)]
    assert all(row["start"] <= min(row["times"]) <= max(row["times"]) < row["end"] for row in rows)
    assert {row["duration"] for row in rows} == {10.0}


def test_cutting_in_another_way_replaces_the_segments(index, folder, tiny_encoder):
    write_video(folder / "a.mp4", [stamp(n, 64, 48) for n in range(50)], fps=5, size=(64, 48))
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert index.counts()["segments"] == 3
    assert add_videos(index, tiny_encoder, [str(folder)], TWO_SECONDS).segments == 7
    assert index.counts()["segments"] == 7
    assert update_index(index, tiny_encoder, WHOLE).unchanged == 3  # as it was added last


def test_a_file_that_was_added_by_itself_stays_cut_as_it_was(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    write_video(folder / "a.mp4", [stamp(n, 64, 48) for n in range(50)], fps=5, size=(64, 48))  # 10 seconds
    add_videos(index, tiny_encoder, [str(folder / "a.mp4")], TWO_SECONDS)
    version = index.version
    for _ in range(2):
        report = update_index(index, tiny_encoder, WHOLE)
        assert (report.added, report.segments, report.missing, report.unchanged) == (0, 0, 0, 3)
    assert index.version == version
    assert index.counts()["segments"] == 7


def test_what_cannot_be_decoded_is_recorded_and_the_run_goes_on(index, folder, tiny_encoder):
    (folder / "0 empty.mp4").touch()
    (folder / "1 text.mp4").write_text("this is no video")
    write_sound(folder / "2 sound.mp4")
    os.mkfifo(folder / "3 pipe.mp4")
    (folder / "4 nowhere.mp4").symlink_to(folder / "is not there")
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (report.added, report.failed) == (3, 5)
    reasons = {os.path.basename(f.path).decode()[0]: f.reason for f in index.files().values() if f.status == "failed"}
    assert "empty" in reasons["0"]
    assert "not a video that can be read" in reasons["1"]
    assert "no video, only sound" in reasons["2"]
    assert "not a regular file" in reasons["3"]
    assert "no such file" in reasons["4"]
    again = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (again.added, again.failed, again.unchanged) == (0, 2, 6)  # only what is no file is looked at again
    retried = add_videos(index, tiny_encoder, [str(folder)], AddConfig(segment="whole", workers=1, retry=True))
    assert retried.failed == 5


class FailsMidway:
    """Reads and embeds as this machine does, but for the named file, of which the second job gives a reason."""

    notices = ()

    def __init__(self, encoder, name):
        self.embed, self.name = SegmentEncoder(encoder), name

    def process(self, jobs, refused, tick):
        for job in jobs:
            result = read_file(job)
            yield job, result, self.embed(result.segments)
            while result.rest is not None and job.path not in refused:
                job, broken = result.rest, os.path.basename(job.path) == self.name
                result = read_file(job)
                yield job, *(("It is broken from here on.", ()) if broken else (result, self.embed(result.segments)))
                if broken:
                    break


def test_of_a_file_that_fails_midway_nothing_stays_and_a_copy_takes_its_place(index, tmp_path, tiny_encoder):
    (tmp_path / "videos").mkdir()
    long = write_video(tmp_path / "videos" / "a.mp4", [stamp(n, 64, 48) for n in range(60)], fps=5, size=(64, 48))
    shutil.copy(long, tmp_path / "videos" / "b.mp4")
    by_seconds = AddConfig(segment="1s", workers=1)  # twelve segments, more than a job reads
    backend = FailsMidway(tiny_encoder, b"a.mp4")
    report = add_videos(index, tiny_encoder, [str(tmp_path / "videos")], by_seconds, backend=backend)
    assert (report.added, report.failed, report.duplicates) == (1, 1, 0)
    assert (paths(index), paths(index, "failed")) == (["b.mp4"], ["a.mp4"])
    assert index.counts()["segments"] == 12
    assert add_videos(index, tiny_encoder, [str(tmp_path / "videos")], by_seconds).unchanged == 2


def test_what_stays_a_problem_changes_nothing(index, folder, tiny_encoder):
    os.mkfifo(folder / "pipe.mp4")
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    version = index.version
    assert add_videos(index, tiny_encoder, [str(folder)], WHOLE).failed == 1
    assert index.version == version


def test_names_need_not_be_text(index, tmp_path, tiny_encoder):
    names = [b"line\nbreak.mp4", b"quo'te\".mp4", "\N{PARTY POPPER}.mp4".encode(), b"\xff\xfe.mp4"]
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    for number, name in enumerate(names):
        video = write_video(tmp_path / "plain.mp4", [stamp(number * 9 + n, 64, 48) for n in range(6)], size=(64, 48))
        os.replace(video, os.path.join(folder, name))
    assert add_videos(index, tiny_encoder, [folder], WHOLE).added == 4
    assert sorted(index.files()) == sorted(os.path.join(folder, name) for name in names)
    assert add_videos(index, tiny_encoder, [folder], WHOLE).unchanged == 4
    assert remove_videos(index, [os.path.join(folder, names[3])]) == 1
    assert index.counts()["videos"] == 3


def test_loops_of_links_end(index, folder, tiny_encoder):
    (folder / "below" / "up").symlink_to(folder)
    (folder / "loop").symlink_to(folder / "loop")
    report = add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert (report.added, report.duplicates, report.failed) == (3, 0, 0)


def test_removing_forgets_everything_below_a_folder(index, folder, tiny_encoder):
    add_videos(index, tiny_encoder, [str(folder)], WHOLE)
    assert remove_videos(index, [str(folder / "below")]) == 1
    assert paths(index) == ["a.mp4", "b.mp4"]
    assert (folder / "below" / "c.mkv").exists()
    assert remove_videos(index, [str(folder)]) == 2
    assert update_index(index, tiny_encoder, WHOLE).added == 0  # it is no source any more


def test_a_video_that_is_longer_than_allowed_is_recorded_with_its_length(index, folder, tiny_encoder):
    write_video(folder / "a.mp4", [stamp(n, 64, 48) for n in range(20)], fps=5, size=(64, 48))  # 4 seconds
    limited = AddConfig(segment="whole", workers=1, longest=3.5)
    report = add_videos(index, tiny_encoder, [str(folder)], limited)
    assert (report.added, report.failed) == (2, 1)
    [failed] = [file for file in index.files().values() if file.status == "failed"]
    assert os.path.basename(failed.path) == b"a.mp4"
    assert "It lasts 4 s, longer than the maximum of 3.5 s" in failed.reason
    with pytest.raises(InputError, match="0 or more"):
        AddConfig(longest=-1.0)


def test_progress_that_raises_ends_the_run_soon_and_what_was_stored_stays(index, tmp_path, tiny_encoder):
    write_video(tmp_path / "a.mp4", [stamp(n, 64, 48) for n in range(100)], fps=5, size=(64, 48))  # 80 segments

    def stop(progress):
        if progress.segments >= 8:
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        add_videos(index, tiny_encoder, [str(tmp_path / "a.mp4")], AddConfig(segment="0.25s", workers=1), stop)
    stored = index.counts()["segments"]
    assert 8 <= stored < 80
    report = add_videos(index, tiny_encoder, [str(tmp_path / "a.mp4")], AddConfig(segment="0.25s", workers=1))
    assert (report.added, report.segments) == (1, 80 - stored)


def test_progress_is_told_while_nothing_comes():
    calls, go_on = [], threading.Event()

    def slow():
        go_on.wait(10)
        yield 1

    def tick():
        calls.append(1)
        if len(calls) == 2:
            go_on.set()

    assert list(Prefetcher(lambda closed: slow(), 1, tick)) == [1]
    assert len(calls) >= 2


def test_a_path_that_is_not_there_is_said_before_anything_is_done(index, tiny_encoder, tmp_path):
    with pytest.raises(InputError, match="no file or folder"):
        add_videos(index, tiny_encoder, [str(tmp_path / "nowhere")], WHOLE)
    assert index.files() == {}


def _path(path):
    from pathlib import Path

    return Path(os.fsdecode(path))

"""A real build of three clips of the demo corpus, from the packages to playable files."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import av
import numpy as np
import pytest
from PIL import Image

from dits.common.errors import CorpusError, StorageError
from dits.corpora import demo
from tests.conftest import PAUSE, serve

THREE = 3


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The demo corpus reduced to three clips, with its own cache folder."""
    return cut_down(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder of the three clips, built; to copy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = cut_down(tmp_path_factory.mktemp("once"), monkeypatch)
        demo.build_demo()
    return folder


@pytest.fixture
def built(small, once):
    """`small`, with its clips."""
    return shutil.copytree(once, small)


def cut_down(folder, monkeypatch):
    lines = demo.SOURCES.read_text().splitlines()
    sources = folder / "sources.csv"
    sources.write_text("\n".join(lines[: THREE + 1]) + "\n")
    monkeypatch.setattr(demo, "SOURCES", sources)
    monkeypatch.setenv("DITS_CACHE", str(folder / "cache"))
    monkeypatch.setattr(demo, "_build_all", lambda jobs, workers: map(demo._build, jobs))  # in this process
    return demo.demo_folder()


def unbuilt():
    return [job.clip for job in demo._jobs() if not demo._is_complete(job)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_builds_playable_clips_and_strips(small):
    seen = []
    demo.build_demo(lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert len(names(small)) == 3 * THREE
    for path in small.glob("*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert stream.frames >= 15
        assert b"moov" in path.read_bytes()[:200]  # the index comes first, so that a browser plays immediately
        assert Image.open(demo.strip_path(path)).size == (12 * 112, 112)


def test_clips_keep_pictures_and_timing_of_their_sources(built):
    for job in demo._jobs():
        animation = Image.open(demo.BytesIO(demo._read_source(job)))
        durations = []
        for index in range(animation.n_frames):
            animation.seek(index)
            animation.load()
            if index == animation.n_frames // 2:
                source = np.asarray(animation.convert("RGB"), dtype=float)
            durations.append(animation.info["duration"] / 1000)  # known once the frame is decoded
        with av.open(str(built / f"{job.clip}.mp4")) as container:
            frames = list(container.decode(video=0))
        starts = [frame.time for frame in frames]
        assert starts == pytest.approx(np.cumsum([0, *durations[:-1]]).tolist(), abs=0.002)
        decoded = frames[len(frames) // 2].to_ndarray(format="rgb24").astype(float)
        height, width, _ = decoded.shape
        assert np.abs(decoded - source[:height, :width]).mean() < 8


def test_does_nothing_twice(built):
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    demo.build_demo()
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == before


def test_rebuilds_damaged_and_missing_files(built):
    first, second, third = sorted(built.glob("*.mp4"))
    first.write_bytes(first.read_bytes()[:1000])
    demo.strip_path(second).unlink()
    third.with_suffix(".json").write_text("{")
    assert unbuilt() == [first.stem, second.stem, third.stem]
    demo.build_demo()
    assert unbuilt() == []


def test_an_interrupted_build_leaves_no_partial_files_and_continues(small, monkeypatch):
    encode = demo._encode

    def interrupted(source, target, job):
        encode(source, target, job)
        if job.clip == demo._jobs()[1].clip:
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.build_demo()
    assert len(names(small)) == 3
    monkeypatch.setattr(demo, "_encode", encode)
    seen = []
    demo.build_demo(lambda done, total: seen.append(done))
    assert seen == [1, 2, 3]


def test_removes_old_temporary_files_of_a_killed_build(built):
    next(built.glob("*.json")).unlink()  # one clip is left to build
    old, young = built / ".writing-old.mp4", built / ".writing-young.mp4"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    demo.build_demo()
    assert not old.exists()
    assert young.exists()


def test_refuses_another_release_of_a_package(small):
    text = demo.SOURCES.read_text().splitlines()
    text[1] = text[1][:-4] + "0000"
    demo.SOURCES.write_text("\n".join(text) + "\n")
    with pytest.raises(CorpusError, match=r"not the release that the captions describe.*requirements\.txt"):
        demo.build_demo()


def test_names_a_missing_package(small):
    demo.SOURCES.write_text("clip,package,sha256\nx-1,no-such-package,00\n")
    with pytest.raises(CorpusError, match="package no-such-package is missing: install it"):
        demo.build_demo()


def test_reports_a_cache_that_is_not_a_folder(small, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="is not a folder"):
        demo.build_demo()


def test_reports_a_full_disk(small, monkeypatch):
    def full(source, target, job):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(demo, "_encode", full)
    with pytest.raises(StorageError, match="No space left"):
        demo.build_demo()
    assert names(small) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_a_sentence(tmp_path):
    """The real command with its worker processes, interrupted when the first clip is built."""
    environment = os.environ | {"DITS_CACHE": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dits", "demo"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_a_clip(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert said.strip().splitlines()[-1].startswith("dits: interrupted")
    assert "Traceback" not in said
    folder = next((tmp_path / "demo").iterdir())
    built = {path.stem for path in folder.glob("*.json")}
    assert 0 < len(built) < 229
    assert {path.stem for path in folder.glob("*.mp4")} == built
    assert not list(folder.glob(".writing-*"))


@pytest.mark.slow
def test_ctrl_c_ends_the_app_while_it_builds(tmp_path):
    """It waits for the clips in progress, not for all remaining clips."""
    process, _ = serve(environment={"DITS_CACHE": str(tmp_path)})
    wait_for_a_clip(process, tmp_path)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    folder = next((tmp_path / "demo").iterdir())
    assert len(list(folder.glob("*.json"))) < 60
    assert not list(folder.glob(".writing-*"))


def wait_for_a_clip(process, cache):
    """Until the first clip is built."""
    while not list(cache.glob("demo/*/*.json")):
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"it ended by itself, with exit code {process.wait(timeout=PAUSE)}")

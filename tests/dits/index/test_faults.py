"""Killed runs, damaged files and full disks: one error message, and nothing half-written."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from dits.cli.parser import main
from dits.common.errors import IndexStoreError
from dits.corpora.index_location import is_index
from dits.encoders.openclip import load_encoder
from dits.index.adding.config import AddConfig
from dits.index.adding.run import add_videos
from dits.index.store import VideoIndex
from tests.conftest import REPOSITORY, TINY, write_open_clip_folder
from tests.helpers.videos import stamp, write_video

WHOLE = AddConfig(segment="whole", workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five videos and one that is none."""
    path = tmp_path_factory.mktemp("videos")
    for number in range(5):
        images = [stamp(number * 30 + n, 64, 48) for n in range(10)]
        write_video(path / f"{number}.mp4", images, size=(64, 48))
    (path / "broken.mp4").write_bytes(b"no video")
    return path


@pytest.fixture(scope="module")
def whole(folder, tiny_encoder, tmp_path_factory):
    """An index of them that nothing happened to."""
    location = tmp_path_factory.mktemp("indexes") / "whole"
    index = VideoIndex.create(str(location), tiny_encoder)
    add_videos(index, tiny_encoder, [folder], WHOLE)
    return location


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of that index, to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def rows(index):
    """Everything that matters of an index, in order."""
    columns = ["id", "path", "size", "mtime", "video", "status", "reason", "start", "end", "frames"]
    return index.rows(columns, None).to_pylist()


def table_folder(location):
    [found] = (path for path in location.iterdir() if path.name != "sources.lance")
    return found


def command(action, location, encoder_folder):
    return ["index", *action, "--index", str(location), "--encoder", f"local-dir:{encoder_folder}"]


def refused(capfd, action, location, encoder_folder):
    """The error message of a command, one sentence. Output of LanceDB's own threads is ignored."""
    assert main(command(action, location, encoder_folder)) == 2
    said = capfd.readouterr()
    [sentence] = [line for line in said.err.splitlines() if line.startswith("dits: ")]
    assert "Traceback" not in said.err
    assert str(location) in sentence
    assert sentence.endswith(".")
    assert ".rs:" not in sentence
    assert said.out == ""
    return sentence


# --- Runs that end before they are done ---


@pytest.fixture
def started(tmp_path, tiny_folder):
    """Starts `index add` on a folder as a user does, at whose terminal all its processes are."""
    processes = []

    def start(location, *arguments):
        words = [sys.executable, "-m", "dits", *command(["add", *map(str, arguments)], location, tiny_folder)]
        environment = os.environ | {"DITS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            words, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_run_that_is_ended_goes_on_where_it_stopped(how, folder, started, tmp_path, tiny_encoder):
    """It decodes slowly: scenes of a long video, of whose end nothing is stored when the signal comes."""
    folder = shutil.copytree(folder, tmp_path / "videos")
    images = [stamp(n, 160, 120) for n in range(900)]
    write_video(folder / "long.avi", images, codec="mpeg4")
    location = tmp_path / "index"
    process = started(location, folder, "--segment", "1s", "--workers", "1")
    assert process.stderr.readline().startswith("Embedding videos:")  # the first segment is embedded
    (os.kill if how == signal.SIGKILL else os.killpg)(process.pid, how)
    out, err = process.communicate(timeout=120)
    assert out == ""
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert [line for line in err.splitlines() if not line.startswith("Embedding videos:")] == [
            "dits: interrupted. Nothing is half-written; run the command again."
        ]
    else:
        assert process.returncode == -signal.SIGKILL
    config = AddConfig(segment="1s", workers=1)
    index = VideoIndex.open(str(location), tiny_encoder)
    before = {row["id"] for row in rows(index)}
    assert len(before) < 50
    if how == signal.SIGINT:
        assert before  # embedded segments are stored before the exit
    report = add_videos(index, tiny_encoder, [folder], config)
    other = VideoIndex.create(str(tmp_path / "uninterrupted"), tiny_encoder)
    expected = add_videos(other, tiny_encoder, [folder], config)
    assert rows(index) == rows(other)
    assert before <= {row["id"] for row in rows(other)}
    assert report.segments == expected.segments - len([name for name in before if not name.startswith("file-")])


@pytest.mark.slow
def test_two_processes_that_add_the_same_folder_store_it_once(folder, whole, started, tmp_path, tiny_encoder):
    location = tmp_path / "index"
    both = [started(location, folder, "--segment", "whole", "--workers", "1") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    index = VideoIndex.open(str(location), tiny_encoder)
    assert rows(index) == rows(VideoIndex.open(str(whole), tiny_encoder))
    assert len({row["id"] for row in rows(index)}) == 6
    assert add_videos(index, tiny_encoder, [folder], WHOLE).unchanged == 6


# --- Damaged files ---


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def scrambled(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


DAMAGE = [
    (pattern, how)
    for pattern in ("data/*.lance", "_versions/*.manifest")
    for how in (cut_off, emptied, scrambled, Path.unlink)
]


@pytest.mark.parametrize(("pattern", "how"), DAMAGE)
@pytest.mark.parametrize("table", ["videos", "sources"])
def test_damage_is_reported(table, pattern, how, copied, folder, tiny_folder, capfd):
    damaged = table_folder(copied) if table == "videos" else copied / "sources.lance"
    for path in damaged.glob(pattern):
        how(path)
    before = contents(copied)
    sentence = refused(capfd, ["add", str(folder)], copied, tiny_folder)
    assert "is damaged" in sentence
    assert "Restore it from a copy" in sentence
    assert contents(copied) == before  # what is left of it is not touched


def contents(location):
    return {path: path.read_bytes() for path in sorted(location.rglob("*")) if path.is_file()}


# --- Indexes of others ---


def remade(location, change):
    """The table again, empty and with other metadata."""
    name = table_folder(location).stem
    database = lancedb.connect(str(location))
    schema = database.open_table(name).schema
    metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    database.drop_table(name)
    database.create_table(name, schema=schema.with_metadata(change(metadata)))


def test_an_index_of_a_newer_version(copied, folder, tiny_folder, capfd):
    remade(copied, lambda metadata: metadata | {"dits.format": "99"})
    assert "newer than this version reads" in refused(capfd, ["status"], copied, tiny_folder)
    assert "newer than this version reads" in refused(capfd, ["add", str(folder)], copied, tiny_folder)


@pytest.mark.parametrize("missing", ["dits.format", "dits.encoder", "dits.frames", "dits.fingerprint"])
def test_a_table_that_does_not_say_what_made_it(missing, copied, folder, tiny_folder, capfd):
    remade(copied, lambda metadata: {key: value for key, value in metadata.items() if key != missing})
    assert "not an index of videos of this project" in refused(capfd, ["add", str(folder)], copied, tiny_folder)


def test_a_table_of_other_columns(tmp_path, tiny_encoder, tiny_folder, capfd):
    name = tiny_encoder.id
    lancedb.connect(str(tmp_path / "other")).create_table(name, pa.table({"vector": [1.0], "text": ["x"]}))
    assert "not an index of videos" in refused(capfd, ["add", str(tmp_path)], tmp_path / "other", tiny_folder)


def test_an_index_of_another_encoder_alone(copied, folder, tmp_path, capfd):
    write_open_clip_folder(tmp_path / "another", TINY | {"embed_dim": 16}, seed=1)
    sentence = refused(capfd, ["status"], copied, tmp_path / "another")
    assert "choose that --encoder" in sentence
    assert table_folder(copied).stem in sentence
    # Adding is no mistake: it gets a table of its own, and the first stays as it is.
    assert main(command(["add", str(folder)], copied, tmp_path / "another")) == 0
    assert len([path for path in copied.iterdir() if path.name != "sources.lance"]) == 2


def test_an_encoder_of_the_same_name_with_other_weights(copied, tiny_encoder, tmp_path):
    write_open_clip_folder(tmp_path / "tiny", seed=2)
    other = load_encoder(f"local-dir:{tmp_path / 'tiny'}", device="cpu")
    other.id = tiny_encoder.id
    for act in (VideoIndex.open, VideoIndex.create):
        with pytest.raises(IndexStoreError, match="other weights of the encoder"):
            act(str(copied), other)


def test_a_file_in_the_place_of_the_index(tmp_path, folder, tiny_folder, capfd):
    (tmp_path / "file").write_text("mine")
    refused(capfd, ["add", str(folder)], tmp_path / "file", tiny_folder)
    assert (tmp_path / "file").read_text() == "mine"


# --- Disks ---


def test_a_folder_that_cannot_be_written(unprivileged_folder, tiny_encoder):
    (unprivileged_folder / "locked").mkdir()
    (unprivileged_folder / "locked").chmod(0o500)
    with pytest.raises(IndexStoreError, match="No permission to write the index"):
        VideoIndex.create(str(unprivileged_folder / "locked"), tiny_encoder)
    with pytest.raises(IndexStoreError, match="No permission to write the index"):
        VideoIndex.create(str(unprivileged_folder / "locked" / "below"), tiny_encoder)
    assert not any((unprivileged_folder / "locked").iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.mark.parametrize("free", [0, 6, 40])
def test_a_full_disk(free, small_disk, copied, folder, tmp_path, tiny_encoder, tiny_folder, capfd):
    """With room for nothing, for part of a change, and for some of them: then the run is repeated with room enough."""
    location = small_disk / "index"
    index = VideoIndex.create(str(location), tiny_encoder)
    fill = small_disk / "fill"
    disk = os.statvfs(small_disk)
    fill.write_bytes(bytes(disk.f_bavail * disk.f_frsize - free * 1024))
    sentence = refused(capfd, ["add", str(folder), "--segment", "whole", "--workers", "1"], location, tiny_folder)
    assert "No space left for the index" in sentence
    before = rows(index)  # it can still be read
    fill.unlink()
    add_videos(index, tiny_encoder, [folder], WHOLE)
    after = rows(index)
    assert len(after) == 6
    assert all(row in after for row in before)


def test_an_index_that_a_full_disk_has_no_room_for_is_not_half_made(small_disk, tiny_encoder):
    location = small_disk / "index"
    fill = small_disk / "fill"
    disk = os.statvfs(small_disk)
    fill.write_bytes(bytes(disk.f_bavail * disk.f_frsize))
    with pytest.raises(IndexStoreError, match="No space left for the index"):
        VideoIndex.create(str(location), tiny_encoder)
    assert not is_index(str(location))
    fill.unlink()
    assert rows(VideoIndex.create(str(location), tiny_encoder)) == []

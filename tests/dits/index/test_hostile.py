"""Folders full of what should not be there: each file is indexed or has its reason, and those beside it are indexed."""

import os
import socket
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from dits.common.errors import VideoError
from dits.index.adding.config import AddConfig
from dits.index.adding.reader import ReadFile, ReadJob, read_file
from dits.index.adding.run import add_videos, update_index
from dits.index.scan import find_videos
from dits.index.store import VideoIndex
from dits.video.sampling import sample_frames
from dits.video.segments import Segmenting
from tests.helpers.videos import cut, stamp, write_sound, write_video

WHOLE = AddConfig(segment="whole", workers=1)


@pytest.fixture
def index(tmp_path, tiny_encoder):
    return VideoIndex.create(str(tmp_path / "index"), tiny_encoder)


@pytest.fixture
def folder(tmp_path):
    """A folder with one good video, the first in it; `good.mp4` and `z.mp4` are its first and last by name."""
    path = tmp_path / "videos"
    path.mkdir()
    write_video(path / "a good.mp4", [stamp(n, 64, 48) for n in range(900, 910)], size=(64, 48))
    write_video(path / "z good.mp4", [stamp(n, 64, 48) for n in range(950, 960)], size=(64, 48))
    return path


def outcomes(index):
    """What became of each file, by its name: "ok", or the reason."""
    return {os.fsdecode(os.path.basename(p)): file.reason or file.status for p, file in index.files().items()}


def added(index, encoder, folder, config=WHOLE):
    """What became of a folder's files; the two good ones are always there, and every reason is one sentence."""
    report = add_videos(index, encoder, [folder], config)
    found = outcomes(index)
    assert found.pop("a good.mp4") == found.pop("z good.mp4") == "ok"
    reasons = [reason for reason in found.values() if reason != "ok"]
    assert report.failed == len(reasons)
    assert all(reason.endswith(".") and "\n" not in reason and "Traceback" not in reason for reason in reasons)
    return found


# --- What is no whole video ---


def test_files_that_are_no_video(index, folder, tiny_encoder):
    (folder / "empty.mp4").touch()
    (folder / "byte.mp4").write_bytes(b"\0")
    (folder / "text.avi").write_text("this is no video\n" * 99)
    (folder / "zip.mkv").write_bytes(b"PK\x03\x04" + bytes(2000))
    (folder / "zeros.webm").write_bytes(bytes(100_000))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    (folder / "noise with a header.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(100_000))
    write_sound(folder / "sound.mp4")
    found = added(index, tiny_encoder, folder)
    assert "empty" in found.pop("empty.mp4")
    assert "only sound" in found.pop("sound.mp4")
    assert "cut off" in found.pop("noise with a header.mp4")
    assert len(found) == 5
    assert all("not a video" in reason for reason in found.values())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_files_that_are_cut_off(suffix, index, folder, tmp_path, tiny_encoder):
    codec = {".avi": "mpeg4", ".webm": "libvpx"}.get(suffix, "libx264")
    whole = write_video(tmp_path / f"whole{suffix}", 60, codec=codec)
    shares = [0.02, 0.5, 0.7, 0.9]
    for share in shares:
        cut(whole, folder / f"{share}{suffix}", share)
    found = added(index, tiny_encoder, folder)
    assert len(found) == len(shares)
    # An mp4 that ends with its index loses it; of the others, what is left is shown.
    assert [found[f"{share}{suffix}"] == "ok" for share in shares] == [False, *[suffix != ".mp4"] * 3]


def test_encrypted_samples(index, folder, tiny_encoder):
    """An mp4 whose header is as it should be, and whose pictures are random bytes: what a key would have to decrypt."""
    path = write_video(folder / "encrypted.mp4", 20, size=(64, 48))
    data = bytearray(path.read_bytes())
    start, size = _box(data, b"mdat")
    data[start : start + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
    protected = folder / "protected.mp4"  # says so itself, as DRM does
    protected.write_bytes(write_video(folder / "x.mp4", 20, size=(64, 48)).read_bytes().replace(b"avc1", b"encv"))
    (folder / "x.mp4").unlink()
    found = added(index, tiny_encoder, folder)
    assert set(found) == {"encrypted.mp4", "protected.mp4"}
    assert "ok" not in found.values()


# --- Videos of odd shapes ---


def test_odd_shapes(index, folder, tiny_encoder):
    write_video(folder / "one frame.mp4", 1, size=(64, 48))
    write_video(folder / "one pixel wide.mp4", [np.full((48, 1, 3), n, np.uint8) for n in range(5)])
    write_video(folder / "one pixel high.mkv", [np.full((1, 48, 3), n, np.uint8) for n in range(5)])
    write_video(folder / "one pixel.mkv", [np.full((1, 1, 3), n, np.uint8) for n in range(5)])
    write_video(folder / "16K wide.mp4", [np.full((16, 16384, 3), n, np.uint8) for n in range(2)])
    write_video(folder / "16K high.mp4", [np.full((16384, 16, 3), n, np.uint8) for n in range(2)])
    found = added(index, tiny_encoder, folder)
    assert found == dict.fromkeys(found, "ok")
    assert len(found) == 6


def test_ten_hours(index, folder, tiny_encoder):
    """A picture a minute, and one keyframe an hour."""
    images = [stamp(n, 64, 48) for n in range(600)]
    write_video(folder / "long.mp4", images, size=(64, 48), times=range(0, 36_000, 60), fps=1, gop=60)
    found = added(index, tiny_encoder, folder, AddConfig(segment="600s", workers=1))
    assert found == {"long.mp4": "ok"}
    rows = index.rows(["id", "start", "end", "duration", "path"]).to_pylist()
    own = [row for row in rows if row["path"].endswith(b"long.mp4")]
    assert [(row["start"], row["end"]) for row in own] == [(n, n + 600) for n in range(0, 36_000, 600)]


def test_without_a_keyframe(index, folder, tmp_path, tiny_encoder):
    whole = write_video(tmp_path / "whole.mkv", 30, size=(64, 48), gop=1000)
    with av.open(str(whole)) as source, av.open(str(folder / "headless.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number > 0 and packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    found = added(index, tiny_encoder, folder)
    assert set(found) == {"headless.mkv"}  # shown as far as the decoder conceals it, or a reason


# --- Headers that lie ---

LIES = {
    "width and height": [(b"avc1", 28, ">HH", (0xFFFF, 0xFFFF)), (b"tkhd", 80, ">II", (0xFFFFFFFF, 0xFFFFFFFF))],
    "no width": [(b"avc1", 28, ">HH", (0, 0)), (b"tkhd", 80, ">II", (0, 0))],
    "duration": [(b"mvhd", 20, ">I", (0xFFFFFFFE,)), (b"mdhd", 20, ">I", (0xFFFFFFFE,))],
    "no duration": [(b"mvhd", 20, ">I", (0,)), (b"mdhd", 20, ">I", (0,))],
    "no time scale": [(b"mdhd", 16, ">I", (0,))],
    "samples": [(b"stsz", 12, ">I", (0x7FFFFFFF,)), (b"stts", 12, ">I", (0x7FFFFFFF,))],
    "sizes of samples": [(b"stsz", 8, ">I", (0x7FFFFFFF,))],
    "duration of a sample": [(b"stts", 16, ">I", (0x7FFFFFFF,))],
    "where samples are": [(b"stco", 12, ">I", (0xFFFFFF00,))],
    "size of a box": [(b"moov", 0, ">I", (0xFFFFFFFF,))],
    "box without end": [(b"trak", 0, ">I", (7,))],
}


def test_headers_that_lie(index, folder, tiny_encoder):
    for number, (name, changes) in enumerate(LIES.items()):
        path = write_video(folder / f"{name}.mp4", [stamp(number * 30 + n, 64, 48) for n in range(12)], size=(64, 48))
        data = bytearray(path.read_bytes())
        for box, offset, layout, values in changes:  # offsets count from the box's size, four bytes before its name
            struct.pack_into(layout, data, data.rindex(box) - 4 + offset, *values)
        path.write_bytes(data)
    found = added(index, tiny_encoder, folder)
    assert set(found) == {f"{name}.mp4" for name in LIES}
    assert found["width and height.mp4"] == found["no width.mp4"] == "ok"  # the stream itself says how large it is


def test_a_picture_that_no_memory_holds_costs_its_file_alone(index, folder, tiny_encoder):
    """A few bytes that ask for 30,000 x 30,000 pixels."""
    size = 30_000
    with av.open(str(folder / "bomb.avi"), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        frame = av.VideoFrame.from_ndarray(stamp(5, 64, 48), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path = folder / "bomb.avi"
    path.write_bytes(path.read_bytes().replace(struct.pack(">II", 64, 48), struct.pack(">II", size, size)))
    found = added(index, tiny_encoder, folder)
    assert found["bomb.avi"] != "ok"


# --- Playlists ---


def playlists(other: Path) -> dict[str, str]:
    stream = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "hls.mp4": stream.format(other.name),
        "hls.m3u8": stream.format(other.name),
        "hls.ts": stream.format(other.as_uri()),
        "concat.mp4": f"ffconcat version 1.0\nfile {other.name}\n",
        "concat.ffconcat": f"ffconcat version 1.0\nfile '{other}'\n",
        "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:full:2011" mediaPresentationDuration="PT1S"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="0" bandwidth="9" width="64" height="48"><BaseURL>'
        f"{other.name}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    }


@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_playlists_show_no_other_file(kind, index, tmp_path, tiny_encoder):
    secret = write_video(tmp_path / f"secret.{kind}", 10, size=(64, 48))
    lists = playlists(secret)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError, match="not a video"):
            sample_frames(tmp_path / name)
    report = add_videos(index, tiny_encoder, [tmp_path / name for name in lists], WHOLE)
    assert (report.added, report.failed) == (0, len(lists))


def test_numbered_pictures_show_no_other_file(tmp_path):
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (64, 48), (80 * number, 0, 0)).save(tmp_path / f"picture{number:03d}.png")
    (tmp_path / "picture000.png").rename(tmp_path / "picture%03d.png")
    with pytest.raises(VideoError, match="not a video"):
        sample_frames(tmp_path / "picture%03d.png")


# --- What a folder may hold ---


def test_names_are_shown_in_reasons_whatever_their_bytes(index, folder, tiny_encoder):
    for name in (b"line\nbreak.mp4", b"quo'te\".mp4", "\N{PARTY POPPER}.mp4".encode(), b"\xff\xfe.mp4", b"-f.mp4"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"no video " + name)
    found = added(index, tiny_encoder, folder)
    assert len(found) == 5
    assert "ok" not in found.values()


def test_what_is_no_file_is_never_opened(index, folder, tiny_encoder):
    os.mkfifo(folder / "pipe.mp4")  # opening it would wait for ever
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "terminal.mp4").symlink_to("/dev/tty")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "nowhere.mp4").symlink_to("nowhere")
    (folder / "up").symlink_to("..")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "socket.mp4"))
    (folder / "folder.mp4").mkdir()
    try:
        found = added(index, tiny_encoder, folder)
    finally:
        listener.close()
    assert {name for name, reason in found.items() if "not a regular file" in reason} == {
        "pipe.mp4", "zero.mp4", "terminal.mp4", "socket.mp4",
    }  # fmt: skip
    assert {name for name, reason in found.items() if "cannot be read" in reason} == {"loop.mp4", "nowhere.mp4"}
    assert "folder.mp4" not in found


def test_without_permission(unprivileged_folder, tiny_encoder):
    (unprivileged_folder / "locked").mkdir()
    write_video(unprivileged_folder / "unreadable.mp4", 5, size=(64, 48)).chmod(0)
    write_video(unprivileged_folder / "good.mp4", 5, size=(64, 48))
    (unprivileged_folder / "locked").chmod(0)
    scan = find_videos([unprivileged_folder])
    assert [os.path.basename(path) for path in scan.files] == [b"good.mp4", b"unreadable.mp4"]
    assert scan.problems == {
        os.fsencode(unprivileged_folder / "locked"): "The folder cannot be listed: permission denied."
    }
    assert "No permission to read it" in read_file(job_of(unprivileged_folder / "unreadable.mp4", tiny_encoder))
    assert isinstance(read_file(job_of(unprivileged_folder / "good.mp4", tiny_encoder)), ReadFile)


# --- Files that change meanwhile ---


def job_of(path, encoder):
    [found] = find_videos([path]).files.values()
    return ReadJob(found.path, found.size, found.mtime, Segmenting.parse("whole"), encoder.transform, 12)


def test_a_file_that_grows_while_it_is_read_is_not_taken(folder, tiny_encoder):
    job = job_of(folder / "a good.mp4", tiny_encoder)
    assert isinstance(read_file(job), ReadFile)
    stop = threading.Event()
    began = threading.Event()

    def grow():
        with open(job.path, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(bytes(64))
                began.set()

    writer = threading.Thread(target=grow)
    writer.start()
    began.wait()
    try:
        assert "changed while it was read" in read_file(job)
    finally:
        stop.set()
        writer.join()


def test_files_that_are_deleted_and_truncated_after_they_were_found(index, folder, tiny_encoder):
    for number in range(8):
        images = [stamp(number * 30 + n, 64, 48) for n in range(8)]
        write_video(folder / f"video {number}.mp4", images, size=(64, 48))

    def progress(_):
        (folder / "video 7.mp4").unlink(missing_ok=True)
        os.truncate(folder / "video 6.mp4", 100)

    report = add_videos(index, tiny_encoder, [folder], WHOLE, progress)
    found = outcomes(index)
    assert (report.added, report.failed) == (8, 2)
    assert "removed" in found["video 7.mp4"]
    assert found["video 6.mp4"] != "ok"
    report = update_index(index, tiny_encoder, WHOLE)
    assert "video 7.mp4" not in outcomes(index)  # there is nothing to say of it any more


def _box(data: bytes, name: bytes) -> tuple[int, int]:
    """Where a box's content begins, and how long it is."""
    at = data.index(name)
    return at + 4, struct.unpack(">I", data[at - 4 : at])[0] - 8

"""Frame sampling, tested on files whose frames show their number."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from dits.common.errors import InputError, VideoError
from dits.video.sampling import probe, sample_frames
from tests.helpers.videos import cut, read_stamp, read_stamps, stamp, write_sound, write_video


@pytest.fixture(params=["decord", "pyav"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test once with decord and once on a machine without it."""
    if request.param == "pyav":
        monkeypatch.setitem(sys.modules, "decord", None)  # `import decord` raises ImportError
    else:
        pytest.importorskip("decord")
    return request.param


def midpoints(frames: int, n: int) -> list[int]:
    """The frame at the middle of each of n equal parts of a clip with a constant frame rate."""
    return [(2 * k + 1) * frames // (2 * n) for k in range(n)]


# --- Which frames, constant frame rate ---

AV1 = {"preset": "10", "svtav1-params": "lp=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
FILES = {  # what is written, and who reads it
    "plain.mp4": ({}, "decord"),
    "fast_start.mp4": ({"muxer": {"movflags": "faststart"}}, "decord"),
    "one_keyframe.mov": ({"gop": 250}, "decord"),
    "intra.mp4": ({"gop": 1, "options": {"bf": "0"}}, "decord"),
    "closed_gop.mp4": ({"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "open-gop=0"}}, "decord"),
    # decord 0.6 silently returns wrong frames if frames are stored after a keyframe and presented before it
    "open_gop.mp4": ({"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "open-gop=1"}}, "pyav"),
    # or if keyframes follow each other faster than frames are reordered
    "fragments.mp4": (
        {
            "gop": 2,
            "codec": "libx265",
            "options": {"preset": "ultrafast", "x265-params": "open-gop=0:bframes=2:keyint=2"},
            "muxer": {"movflags": "frag_keyframe+empty_moov"},
        },
        "pyav",
    ),
    # or if the format does not support its seeks
    "other.mkv": ({}, "pyav"),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": VP9}, "pyav"),
    "mpeg.ts": ({}, "pyav"),
    "mpeg4.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, "pyav"),
    "pyramid.avi": ({"options": {"preset": "veryfast", "x264-params": "bframes=5:b-pyramid=2"}}, "pyav"),
    "flash.flv": ({"codec": "flv1"}, "pyav"),
    "av1.mp4": ({"codec": "libsvtav1", "options": AV1}, "pyav"),  # decord 0.6 has no AV1
    "av1.webm": ({"codec": "libsvtav1", "options": AV1}, "pyav"),
}


@pytest.mark.parametrize("name", FILES)
def test_shows_the_frames_at_the_midpoints(name: str, tmp_path: Path) -> None:
    settings, reader = FILES[name]
    path = write_video(tmp_path / name, 50, **settings)
    for n in (1, 5, 12, 50):
        sample = sample_frames(path, n)
        expected = midpoints(50, n)
        assert read_stamps(sample.frames) == expected
        np.testing.assert_allclose(sample.times, np.array(expected) / 30, atol=1e-3)
        assert sample.decoder == reader
        assert sample.frames.dtype == np.uint8
        assert sample.times.dtype == np.float64


def test_without_decord_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    noise = np.random.default_rng(0).integers(0, 256, (20, 27, 40, 3), np.uint8)
    images = [np.kron(image, np.ones((8, 8, 1), np.uint8)) for image in noise]
    path = write_video(tmp_path / "noise.mp4", images)
    for size in (None, 100):
        with monkeypatch.context() as patch:
            with_decord = sample_frames(path, 7, size=size)
            patch.setitem(sys.modules, "decord", None)
            without = sample_frames(path, 7, size=size)
        assert (with_decord.decoder, without.decoder) == ("decord", "pyav")
        np.testing.assert_array_equal(with_decord.frames, without.frames)
        np.testing.assert_array_equal(with_decord.times, without.times)


def test_colours_are_rgb(decoder: str, tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0] = 255
    sample = sample_frames(write_video(tmp_path / "red.mp4", [red] * 3), 1)
    assert sample.decoder == decoder
    assert sample.frames[0].mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=8)


def test_unpacks_to_frames_and_times(tmp_path: Path) -> None:
    frames, times = sample_frames(write_video(tmp_path / "a.mp4"), 4)
    assert frames.shape == (4, 120, 160, 3)
    assert times.shape == (4,)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_short_clips_repeat_frames_in_order(length: int, suffix: str, decoder: str, tmp_path: Path) -> None:
    sample = sample_frames(write_video(tmp_path / f"short.{suffix}", length), 12)
    assert read_stamps(sample.frames) == midpoints(length, 12)
    assert len(sample.times) == 12


def test_twelve_frames_by_default(tmp_path: Path) -> None:
    assert read_stamps(sample_frames(write_video(tmp_path / "a.mp4", 36)).frames) == midpoints(36, 12)


# --- Time ---


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_is_sampled_by_time(suffix: str, decoder: str, tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 3, 30, 31, 60, 90, 100]  # thirtieths of a second; the last frame lasts one
    path = write_video(tmp_path / f"vfr.{suffix}", 9, times=shown_at)
    sample = sample_frames(path, 10)
    middles = [(k + 0.5) * 10.1 for k in range(10)]
    expected = [max(i for i, time in enumerate(shown_at) if time <= middle) for middle in middles]
    assert expected == [3, 3, 3, 5, 5, 5, 6, 6, 6, 7]
    assert read_stamps(sample.frames) == expected
    np.testing.assert_allclose(sample.times, [shown_at[i] / 30 for i in expected], atol=1e-3)
    assert probe(path).duration == pytest.approx(101 / 30, abs=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_count_from_the_first_frame(suffix: str, decoder: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"late.{suffix}", 30, times=range(100, 130))
    sample = sample_frames(path, 3, start=0.0, end=0.5)
    assert read_stamps(sample.frames) == [2, 7, 12]
    np.testing.assert_allclose(sample.times, [2 / 30, 7 / 30, 12 / 30], atol=1e-3)
    assert probe(path).duration == pytest.approx(1.0, abs=2e-3)


def test_frames_edited_out_are_not_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "edited.mp4", 30, times=range(-5, 25))  # 5 frames before the start
    sample = sample_frames(path, 5)
    assert read_stamps(sample.frames) == [5 + k for k in midpoints(25, 5)]
    assert sample.times[0] == pytest.approx(2 / 30)
    assert probe(path).frames == 25


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1.0, 2.0, [33, 41, 48, 56]),  # 1 s + 1/8 s, 3/8 s, 5/8 s, 7/8 s
        (1.0, None, [41, 63, 86, 108]),
        (None, 1.0, [3, 11, 18, 26]),
        (3.5, 99.0, [106, 110, 114, 118]),  # an end past the clip means its end
        (2.01, 2.02, [60, 60, 60, 60]),  # within one frame
    ],
)
def test_segments(start: float | None, end: float | None, expected: list[int], decoder: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", 120)
    sample = sample_frames(path, 4, start=start, end=end)
    assert read_stamps(sample.frames) == expected
    assert sample.decoder == decoder


# --- Size and rotation ---


@pytest.mark.parametrize(
    ("stored", "size", "shown"),
    [
        ((351, 263), None, (351, 263)),
        ((351, 263), 224, (299, 224)),
        ((120, 200), 60, (60, 100)),
        ((160, 120), 120, (160, 120)),
        ((160, 120), 500, (160, 120)),  # not enlarged
        ((160, 16), 1, (10, 1)),
        ((160, 120), 18, (24, 18)),  # a width that decord 0.6 fails at
    ],
)
def test_size_is_that_of_the_shorter_side(
    stored: tuple[int, int], size: int | None, shown: tuple[int, int], decoder: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "sized.mp4", 10, size=stored)
    frames = sample_frames(path, 2, size=size).frames
    assert frames.shape == (2, shown[1], shown[0], 3)
    if size != 1:
        assert read_stamps(frames) == [2, 7]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_files_come_out_upright(turn: int, suffix: str, decoder: str, tmp_path: Path) -> None:
    lying = write_video(tmp_path / f"lying.{suffix}", 9, size=(160, 96))
    turned = write_video(tmp_path / f"turned.{suffix}", 9, size=(160, 96), rotation=turn)
    upright = np.rot90(sample_frames(lying, 3).frames, turn // 90, axes=(1, 2))
    frames = sample_frames(turned, 3).frames
    assert frames.shape == upright.shape
    assert np.abs(frames.astype(int) - upright).mean() < 1
    info = probe(turned)
    assert (info.width, info.height) == (upright.shape[2], upright.shape[1])
    assert min(sample_frames(turned, 1, size=48).frames.shape[1:3]) == 48


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_that_of_decord(turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decord = pytest.importorskip("decord")
    path = write_video(tmp_path / "turned.mp4", 9, size=(160, 96), rotation=turn)
    expected = decord.VideoReader(str(path)).get_batch([4]).asnumpy()
    monkeypatch.setitem(sys.modules, "decord", None)
    sample = sample_frames(path, 1)
    assert sample.decoder == "pyav"
    np.testing.assert_array_equal(sample.frames, expected)


def test_probe(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "a.mp4", 50, fps=25, size=(160, 96)))
    assert (info.frames, info.width, info.height, info.codec) == (50, 160, 96, "h264")
    assert info.duration == pytest.approx(2.0)
    assert info.fps == pytest.approx(25)
    one = probe(write_video(tmp_path / "one.webm", 1, codec="libvpx-vp9", options=VP9))
    assert (one.frames, one.codec) == (1, "vp9")
    assert one.duration == pytest.approx(1 / 30, abs=2e-3)


# --- Damaged files ---


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fast_start.mp4", {"muxer": {"movflags": "faststart"}}),
        ("fragments.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
        ("other.mkv", {}),
    ],
)
def test_truncated_files_show_the_remaining_frames(
    name: str, settings: dict[str, dict[str, str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / name, 120, **settings)
    capfd.readouterr()
    rest = cut(whole, tmp_path / f"cut_{name}", 0.7)
    left = probe(rest).frames
    assert 40 < left < 120
    sample = sample_frames(rest, 6)
    assert sample.decoder == "pyav"
    numbers = read_stamps(sample.frames)
    np.testing.assert_allclose(sample.times, np.array(numbers) / 30, atol=1e-3)
    np.testing.assert_allclose(numbers, midpoints(left, 6), atol=2)  # the cut may take frames shown before others
    assert capfd.readouterr().err == ""


def test_damage_in_the_middle_does_not_stop_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _damaged(tmp_path / "damaged.mp4")
    capfd.readouterr()
    sample = sample_frames(path, 12)
    assert read_stamp(sample.frames[0]) == 5
    assert read_stamp(sample.frames[-1]) == 115
    assert (np.diff(sample.times) >= 0).all()
    assert capfd.readouterr().err == ""


def test_decords_reports_stay_off_until_its_reader_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads continue after a failure, and their log lines would appear on the user's terminal."""
    decord = pytest.importorskip("decord")
    readers: list[weakref.ref[object]] = []
    alive: dict[int, list[object]] = {}

    class Noted(decord.VideoReader):
        def __init__(self, *args: object, **keywords: object) -> None:
            readers.append(weakref.ref(self))
            super().__init__(*args, **keywords)

    def set_level(level: int) -> None:
        alive[level] = [reader for reader in readers if reader() is not None]

    monkeypatch.setattr(decord, "VideoReader", Noted)
    monkeypatch.setattr(decord.logging, "set_level", set_level)
    whole = write_video(tmp_path / "whole.mp4", 30)
    assert sample_frames(whole, 3).decoder == "decord"
    assert sample_frames(_damaged(tmp_path / "damaged.mp4"), 12).decoder == "pyav"
    assert len(readers) == 2
    assert alive == {decord.logging.QUIET: [], decord.logging.ERROR: []}


def _damaged(path: Path) -> Path:
    """120 frames, with zeros in the middle of their pixels."""
    data = bytearray(write_video(path, 120, muxer={"movflags": "faststart"}).read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 400)
    data[middle] = bytes(400)
    path.write_bytes(data)
    return path


def _unreadable(name: str, folder: Path) -> Path:
    path = folder / name
    if name == "folder.mp4":
        path.mkdir()
    elif name == "cut_off.mp4":
        cut(write_video(folder / "whole.mp4", 60), path, 0.8)
    elif name == "unknown_codec.mp4":
        path.write_bytes(write_video(folder / "whole.mp4").read_bytes().replace(b"avc1", b"zzz1"))
    elif name == "sound.mp4":
        write_sound(path)
    elif name == "playlist.m3u8":
        path.write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    elif name.startswith("text"):
        path.write_text("This is not a video.\n" * 50)
    elif name == "empty.mp4":
        path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "does not exist"),
        ("folder.mp4", "is a folder"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "is not a video"),
        ("text.txt", "holds no video"),
        ("playlist.m3u8", "is not a video"),
        ("sound.mp4", "holds no video"),
        ("cut_off.mp4", "is cut off"),
        ("unknown_codec.mp4", "unknown video codec"),
    ],
)
def test_unreadable_files_are_named_in_one_sentence(
    name: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _unreadable(name, tmp_path)
    capfd.readouterr()
    for read in (sample_frames, probe):
        with pytest.raises(VideoError, match=says) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert message.endswith(".")
        assert "\n" not in message
        assert "Errno" not in message
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert capfd.readouterr().err == ""


def test_paths_that_look_like_urls_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "plain.mp4", 10).rename(tmp_path / "concat:a:b%03d é.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_stamps(sample_frames("concat:a:b%03d é.mp4", 2).frames) == [2, 7]


# --- Arguments ---


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0},
        {"n": -3},
        {"size": 0},
        {"start": -0.1},
        {"start": 2.0, "end": 1.0},
        {"start": 1.0, "end": 1.0},
        {"end": 0.0},
        {"start": float("nan")},
        {"end": float("nan")},
    ],
)
def test_arguments_out_of_range(arguments: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give .*\.$"):
        sample_frames(tmp_path / "not_even_opened.mp4", **arguments)


def test_a_start_past_the_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    with pytest.raises(InputError, match=r"a\.mp4, which lasts 1\.00 s"):
        sample_frames(path, 2, start=1.0)


# --- Cost ---


def test_ends_if_another_library_has_turned_on_the_decoders_log(tmp_path: Path) -> None:
    """Older releases of torchvision do; closing a decoder then caused a deadlock."""
    options = {"preset": "ultrafast", "x265-params": "open-gop=1"}
    path = write_video(tmp_path / "a.mp4", 90, codec="libx265", gop=12, options=options)
    script = (
        "import sys, av; av.logging.set_level(av.logging.ERROR)\n"
        "from dits.video.sampling import sample_frames\n"
        "for k in range(70):\n"
        "    print(len(sample_frames(sys.argv[1], 5, size=40, start=k / 7 % 2, end=k / 7 % 2 + 0.4).frames))"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["5"] * 70


def test_importing_loads_no_decoder() -> None:
    code = "import sys, dits.video.sampling; print(sorted({'av', 'decord', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


MEASURE = """
import resource, sys
if sys.argv[2] == "pyav":
    sys.modules["decord"] = None
from dits.video.sampling import sample_frames
sample_frames(sys.argv[3], 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sample = sample_frames(sys.argv[1], 12)
assert sample.decoder == sys.argv[2]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux")
def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    images = [stamp(k, 480, 272) for k in range(8)]  # 1,500 frames decoded: 590 MB
    path = write_video(
        tmp_path / "long.mp4", [images[k % 8] for k in range(1500)], gop=250, options={"preset": "ultrafast"}
    )
    short = write_video(tmp_path / "short.mp4", 5)
    for decoder in ("decord", "pyav"):
        command = [sys.executable, "-c", MEASURE, str(path), decoder, str(short)]
        assert int(subprocess.check_output(command, text=True)) < 150

"""How videos are cut into segments, and the frames of the segments."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dits.common.errors import DitsError, InputError, VideoError
from dits.video import probe as video_file
from dits.video import sampling as video_module
from dits.video.probe import MAX_PIXELS, Video, inspect_video
from dits.video.sampling import every_frame, probe, sample_frames, sample_spans, thumbnail
from dits.video.segments import MAX_SCENE_SECONDS, MAX_SEGMENTS, MIN_SCENE_SECONDS, Segmenting, scene_cuts, spans
from tests.helpers.videos import cut, read_stamp, read_stamps, stamp, write_video

# --- sample_spans and sample_frames agree ---

OPEN_GOP = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "open-gop=1"}}
UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 9, 90)).tolist()
FAST_START = {"muxer": {"movflags": "faststart"}}


def damaged(folder: Path) -> Path:
    path = write_video(folder / "damaged.mp4", 120, **FAST_START)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "closed GOP": lambda folder: write_video(folder / "a.mp4", 90),
    "open GOP": lambda folder: write_video(folder / "a.mp4", 90, **OPEN_GOP),
    "one keyframe": lambda folder: write_video(folder / "a.mp4", 90, gop=250),
    "only keyframes": lambda folder: write_video(folder / "a.mkv", 90, gop=1, options={"bf": "0"}),
    "Matroska": lambda folder: write_video(folder / "a.mkv", 90),
    "AVI": lambda folder: write_video(folder / "a.avi", 90, codec="mpeg4", options={"bf": "2"}),
    "MPEG stream": lambda folder: write_video(folder / "a.ts", 90),
    "variable frame rate": lambda folder: write_video(folder / "a.mp4", 90, times=UNEVEN),
    "variable, Matroska": lambda folder: write_video(folder / "a.mkv", 90, times=UNEVEN),
    "rotated": lambda folder: write_video(folder / "a.mp4", 90, rotation=90),
    "truncated": lambda folder: cut(write_video(folder / "a.mp4", 120, **FAST_START), folder / "b.mp4", 0.7),
    "truncated, Matroska": lambda folder: cut(write_video(folder / "a.mkv", 120), folder / "b.mkv", 0.7),
    "damaged": damaged,
    "one frame": lambda folder: write_video(folder / "a.mp4", 1),
    "one pixel wide": lambda folder: write_video(
        folder / "a.mp4", [np.full((64, 1, 3), 9 * k, np.uint8) for k in range(24)]
    ),
    "very wide": lambda folder: write_video(folder / "a.mp4", 3, size=(16384, 64), options={"preset": "ultrafast"}),
}


@pytest.mark.parametrize("name", FILES)
def test_sampling_all_segments_equals_sampling_each(name: str, tmp_path: Path) -> None:
    video = inspect_video(FILES[name](tmp_path))
    duration = video.info.duration
    segments = [(k * duration / 7, (k + 1) * duration / 7) for k in range(7)]
    for chosen in (segments, [segments[1], segments[4], (segments[6][0], np.inf)], segments[3:4]):
        sampled = list(sample_spans(video, chosen, 5, size=40))
        for (start, end), span in zip(chosen, sampled, strict=True):
            alone = sample_frames(video.path, 5, size=40, start=start, end=end)
            np.testing.assert_array_equal(span.frames, alone.frames)
            np.testing.assert_array_equal(span.times, alone.times)
            assert span.frames.dtype == np.uint8


def test_segments_show_the_frames_at_their_midpoints(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "a.mkv", 120))
    sampled = sample_spans(video, [(0.0, 1.0), (1.0, 2.0), (3.5, 99.0)], 4)
    assert [read_stamps(span.frames) for span in sampled] == [
        [3, 11, 18, 26],
        [33, 41, 48, 56],
        [106, 110, 114, 118],
    ]


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_one_pass_over_the_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = {"codec": "mpeg4"} if suffix == "avi" else {}
    video = inspect_video(write_video(tmp_path / f"a.{suffix}", 240, **codec))
    opens, packets = [], []

    @contextmanager
    def counted_opening(path: Path) -> Iterator[tuple[object, object]]:
        opens.append(path)
        with opened(path) as both:
            yield both

    def counted_packets(container: object, stream: object) -> Iterator[object]:
        for packet in list_packets(container, stream):
            packets.append(packet and packet.pts)
            yield packet

    opened, list_packets = video_module.opened, video_module.packets
    monkeypatch.setattr(video_module, "opened", counted_opening)
    monkeypatch.setattr(video_module, "packets", counted_packets)
    assert len(list(sample_spans(video, spans(video, Segmenting.parse("0.1s")), 12))) == 80
    assert len(opens) == 1
    assert len(packets) <= 241  # the last tells the decoder to finish


def test_a_segment_at_the_end_is_reached_by_a_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = inspect_video(write_video(tmp_path / "a.mkv", 600))
    read = []
    decoded = video_module.decoded
    monkeypatch.setattr(video_module, "decoded", lambda *both: read.append(1) or decoded(*both))
    assert [read_stamps(span.frames) for span in sample_spans(video, [(0, 0.1), (19.9, 20)], 3)] == [
        [0, 1, 2],
        [597, 598, 599],
    ]
    assert len(read) < 100


def test_no_segments_and_invalid_ones(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "a.mp4"))
    assert list(sample_spans(video, [])) == []
    for wrong in ([(0.5, 1.0), (0.0, 0.5)], [(0.0, 0.6), (0.5, 1.0)], [(0.5, 0.5)], [(-1, 1)], [(0, 0.5), (1.0, 2.0)]):
        with pytest.raises(InputError, match=r"\.$"):
            sample_spans(video, wrong)


def test_every_frame_in_order(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "a.mkv", 50))
    times, frames = zip(*every_frame(video, 60), strict=True)
    assert read_stamps(frames) == list(range(50))
    np.testing.assert_allclose(times, np.arange(50) / 30, atol=1e-3)
    assert frames[0].shape == (60, 80, 3)


# --- The examined video ---


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_an_examined_video_can_be_sent_to_a_worker(suffix: str, tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / f"a.{suffix}", 60))
    assert video.info == probe(video.path)
    copy = pickle.loads(pickle.dumps(video))
    segments = [(0.0, 1.0), (1.0, 2.0)]
    for here, there in zip(sample_spans(video, segments), sample_spans(copy, segments), strict=True):
        np.testing.assert_array_equal(here.frames, there.frames)


def test_a_file_that_disappears_is_named(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "gone.mp4"))
    Path(video.path).unlink()
    for read in (lambda: list(sample_spans(video, [(0, 0.5), (0.5, 1)])), lambda: scene_cuts(video)):
        with pytest.raises(VideoError, match=r"gone\.mp4 does not exist"):
            read()


# --- Limits ---


def picture(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(data, "JPEG")
    return data.getvalue()


def write_pictures(path: Path, *pictures: bytes, size: tuple[int, int]) -> Path:
    """A video of JPEG images; its header declares the given size, whatever the size of the images."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        for number, data in enumerate(pictures):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 30)
            packet.is_keyframe = True
            container.mux(packet)
    return path


def test_a_header_that_declares_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "large.mp4", 2, size=(160, 120))
    monkeypatch.setattr(video_file, "MAX_PIXELS", 160 * 120)
    assert inspect_video(path).info.width == 160
    monkeypatch.setattr(video_file, "MAX_PIXELS", 160 * 120 - 1)
    with pytest.raises(VideoError, match=r"large\.mp4 has frames of 160 x 120 pixels, more than the 19,199 that"):
        inspect_video(path)


def test_more_pixels_than_the_header_declares_are_not_decoded(tmp_path: Path) -> None:
    small, bomb = picture(64, 48), picture(9000, 9000)
    assert MAX_PIXELS < 9000 * 9000
    lying = write_pictures(tmp_path / "lying.mkv", bomb, bomb, size=(64, 48))
    with pytest.raises(VideoError, match=r"lying\.mkv holds no frame .* at most 67,108,864 pixels"):
        inspect_video(lying)
    later = write_pictures(tmp_path / "later.mkv", small, small, bomb, small, size=(64, 48))
    frames, times = sample_frames(later, 4)
    assert frames.shape == (4, 48, 64, 3)
    np.testing.assert_allclose(times, [0, 1 / 30, 1 / 30, 3 / 30], atol=2e-3)  # the bomb shows the frame before


def test_a_size_that_changes_is_scaled_to_the_first(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "a.mkv", picture(64, 48), picture(300, 20), picture(64, 48), size=(64, 48))
    assert sample_frames(path, 3).frames.shape == (3, 48, 64, 3)
    assert scene_cuts(inspect_video(path)) == []


def test_an_impossible_length_is_refused(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "a.mkv", 30))
    ages = replace(video, info=replace(video.info, duration=1e12))
    for text in ("10s", "scenes"):
        with pytest.raises(InputError, match=r"a\.mkv lasts 1000000000000 s by its own account"):
            spans(ages, Segmenting.parse(text))
    with pytest.raises(InputError, match="choose longer segments"):
        spans(video, Segmenting.parse("0.000001s"))
    assert spans(ages, Segmenting.parse("whole")) == [(0.0, 1e12)]


# --- Segmenting ---


@pytest.mark.parametrize("text", ["whole", "scenes", "10s", "2.5s", "0.1s", "86400s"])
def test_segmentings_are_written_as_they_are_read(text: str) -> None:
    assert str(Segmenting.parse(text)) == text


def test_lengths() -> None:
    assert Segmenting.parse("10s") == Segmenting.parse("10.0s") == Segmenting("length", 10.0)
    assert Segmenting.parse(".5s") == Segmenting("length", 0.5)


WRONG = [
    "",
    "10",
    "s",
    "0s",
    "0.0s",
    "-1s",
    "1e3s",
    "infs",
    "nans",
    "10 s",
    "10S",
    "10s\n",
    "x",
    "Whole",
    "٣s",
    "9" * 400 + "s",
]


@pytest.mark.parametrize("text", WRONG)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"give whole, scenes, or a number of seconds such as 10s\.$"):
        Segmenting.parse(text)


def lasting(video: Video, seconds: float) -> Video:
    return replace(video, info=replace(video.info, duration=seconds))


def test_segments_of_a_length_cover_the_video(tmp_path: Path) -> None:
    video = inspect_video(write_video(tmp_path / "a.mkv", 5))
    rng = np.random.default_rng(1)
    for duration, length in zip(rng.uniform(0.01, 500, 200), rng.uniform(0.3, 60, 200), strict=True):
        segments = spans(lasting(video, duration), Segmenting("length", length))
        starts, ends = np.array(segments).T
        assert (starts[0], ends[-1]) == (0, duration)
        np.testing.assert_array_equal(starts[1:], ends[:-1])
        np.testing.assert_allclose((ends - starts)[:-1], length)
        last = ends[-1] - starts[-1]
        assert last == duration if len(segments) == 1 else length / 2 - 1e-9 <= last < length * 1.5 + 1e-9
        assert len(segments) <= MAX_SEGMENTS


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (30.0, [(0, 10), (10, 20), (20, 30)]),
        (34.9, [(0, 10), (10, 20), (20, 34.9)]),
        (35.0, [(0, 10), (10, 20), (20, 30), (30, 35)]),
        (4.0, [(0, 4)]),
        (14.0, [(0, 14)]),
    ],
)
def test_a_short_rest_joins_the_last_segment(
    duration: float, expected: list[tuple[float, float]], tmp_path: Path
) -> None:
    video = lasting(inspect_video(write_video(tmp_path / "a.mkv", 5)), duration)
    assert spans(video, Segmenting.parse("10s")) == expected
    assert spans(video, Segmenting.parse("whole")) == [(0, duration)]


@pytest.mark.parametrize("text", ["whole", "10s", "scenes"])
def test_an_image_without_duration_is_one_segment(text: str, tmp_path: Path) -> None:
    video = lasting(inspect_video(write_video(tmp_path / "a.mkv", 1)), 0.0)
    [segment] = spans(video, Segmenting.parse(text))
    [sampled] = sample_spans(video, [segment], 3)
    assert read_stamps(sampled.frames) == [0, 0, 0]
    assert sampled.times.tolist() == [0, 0, 0]


# --- Scenes ---


def write_scenes(path: Path, *lengths: int, fps: int = 30, rotation: int = 0, **settings: object) -> Path:
    """Scenes with these numbers of frames, each with another colour, all with slightly moving noise."""
    colours = [(200, 40, 40), (40, 60, 200), (40, 180, 60), (220, 220, 60)]
    rng = np.random.default_rng(0)
    images = []
    for number, length in enumerate(lengths):
        for _ in range(length):
            image = np.full((96, 128, 3), colours[number % 4], np.int16) + rng.integers(-5, 6, (96, 128, 1))
            images.append(image.clip(0, 255).astype(np.uint8))
    return write_video(path, images, fps=fps, rotation=rotation, options={"preset": "ultrafast"}, **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("turned.mp4", {"rotation": 90}),
        ("uneven.mkv", {"times": np.cumsum(np.random.default_rng(2).integers(1, 4, 160)).tolist()}),
    ],
)
def test_scenes_are_cut_where_they_change(name: str, settings: dict[str, object], tmp_path: Path) -> None:
    video = inspect_video(write_scenes(tmp_path / name, 50, 70, 40, **settings))
    times = video.times()
    np.testing.assert_allclose(scene_cuts(video), times[[50, 120]], atol=2e-3)
    segments = spans(video, Segmenting.parse("scenes"))
    edges = [0, times[50], times[120], video.info.duration]
    np.testing.assert_allclose(segments, list(pairwise(edges)), atol=2e-3)
    for colour, span in enumerate(sample_spans(video, segments, 12, size=32)):  # no frames of other scenes
        red, green, blue = span.frames.mean(axis=(1, 2)).T
        assert ((red > 150) == (colour == 0)).all()
        assert ((blue > 150) == (colour == 1)).all()
        assert ((green > 150) == (colour == 2)).all()


def test_flashes_join_their_neighbours(tmp_path: Path) -> None:
    video = inspect_video(write_scenes(tmp_path / "a.mp4", 45, 6, 45, 12))
    assert len(scene_cuts(video)) == 3
    segments = spans(video, Segmenting.parse("scenes"))
    np.testing.assert_allclose(segments, [(0, 1.5), (1.5, 3.6)], atol=2e-3)
    assert min(end - start for start, end in segments) >= MIN_SCENE_SECONDS


def test_long_scenes_are_cut_into_equal_parts(tmp_path: Path) -> None:
    video = inspect_video(write_scenes(tmp_path / "a.mkv", 70, 20, fps=1))  # 70 s and 20 s
    segments = spans(video, Segmenting.parse("scenes"))
    np.testing.assert_allclose(segments, [(0, 35), (35, 70), (70, 90)], atol=2e-3)
    assert max(end - start for start, end in segments) <= MAX_SCENE_SECONDS


@pytest.mark.parametrize("name", ["truncated", "damaged", "one frame", "one pixel wide", "very wide"])
def test_scenes_of_odd_files_cover_them(name: str, tmp_path: Path) -> None:
    video = inspect_video(FILES[name](tmp_path))
    segments = spans(video, Segmenting.parse("scenes"))
    assert segments[0][0] == 0
    assert segments[-1][1] == video.info.duration
    assert len(list(sample_spans(video, segments, 2, size=16))) == len(segments)


def test_without_the_detector_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = inspect_video(write_video(tmp_path / "a.mp4"))
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(
        DitsError,
        match=r"pip install scenedetect, and the system's libgl1 if that is missing, or cut by a length such as 10s\.$",
    ):
        spans(video, Segmenting.parse("scenes"))
    assert len(spans(video, Segmenting.parse("0.5s"))) == 2


def test_importing_loads_no_detector() -> None:
    code = "import sys, dits.video.segments; print(sorted({'av', 'cv2', 'scenedetect', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- Thumbnails ---


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (160, 120)), ((60, 90), (160, 240)), ((900, 1), (160, 1)), ((1, 800), (160, 65500))],
)
def test_thumbnails(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(thumbnail(stamp(5, *size))))
    assert (image.format, image.size) == ("JPEG", expected)


def test_a_thumbnail_shows_the_frame() -> None:
    data = thumbnail(stamp(1234, 640, 480))
    assert read_stamp(np.array(Image.open(io.BytesIO(data)))) == 1234
    assert len(data) < 10_000

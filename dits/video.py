"""Frames of a video file: the only place that opens one.

decord reads a clip where it is known to return the right frames, PyAV everything else. Which frames are
wanted is decided before either runs, from the presentation times that the file itself lists, so both return
the same frames, scaled by the same filter.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dits.errors import InputError, VideoError

if TYPE_CHECKING:  # both libraries are imported where they are used, so that importing this module is quick
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

PathLike = str | os.PathLike[str]

_THREADS = 2  # more gain little for a dozen frames, and a corpus is read by several processes at once
_EXACT_SEEK = ("mov", "matroska")  # the formats (mp4, mov, mkv, webm) in which a seek ends where it should


@dataclass(frozen=True)
class SampledFrames:
    """Frames of one clip; unpacks as `frames, times = sample_frames(...)`."""

    frames: np.ndarray  # (n, H, W, 3) uint8 RGB, upright
    times: np.ndarray  # (n,) float64, seconds from the clip's first frame to the frame shown
    decoder: str  # "decord" or "pyav"

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.frames, self.times))


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, counted from its packets: a truncated file tells what is left of it."""

    duration: float  # seconds, from the first frame to the end of the last; sound does not count
    frames: int
    width: int  # pixels as shown, after rotation
    height: int
    fps: float  # average: frames / duration
    codec: str  # "h264", "vp9", "av1", ...


def sample_frames(
    path: PathLike,
    n: int = 12,
    *,
    size: int | None = None,
    start: float | None = None,
    end: float | None = None,
    positions: np.ndarray | None = None,
) -> SampledFrames:
    """The frames shown at the mid-points of n equal segments of a clip, or of its seconds `start` to `end`.

    Mid-points are points in time, so a variable frame rate is sampled evenly; a clip of fewer than n frames
    repeats frames, in order. `size` scales the shorter side to that many pixels, aspect ratio kept; a clip
    that is smaller is not enlarged, and None keeps the file's own size. `start` and `end` count from the
    first frame; an `end` past the last frame means the end of the last frame. `positions` (n,) from 0 to below 1
    say where in each segment to look, instead of the middle.

    Raises InputError for an argument out of range (also a `start` past the end of the clip) and VideoError
    for a file that cannot be read.
    """
    _check_arguments(n, size, start, end)
    clip = _read_clip(path)
    within = np.full(n, 0.5) if positions is None else positions
    shown = _shown_in_segments(clip, within, start or 0.0, math.inf if end is None else end)
    width, height = _scaled(clip.width, clip.height, size)
    numbers, repeats = np.unique(shown, return_inverse=True)  # each frame is decoded once

    frames, pts, decoder = _read_with_decord(clip, numbers, width, height), clip.pts[numbers], "decord"
    if frames is None:
        frames, pts = _read_with_pyav(clip, pts, width, height)
        decoder = "pyav"
    if len(numbers) < n:
        frames = frames[repeats]
    return SampledFrames(frames, clip.seconds(pts)[repeats], decoder)


def probe(path: PathLike) -> VideoInfo:
    """Length, size and codec of a video file. Decodes one frame; raises VideoError as sample_frames does."""
    clip = _read_clip(path)
    fps = len(clip.pts) / clip.duration if clip.duration > 0 else 0.0
    return VideoInfo(clip.duration, len(clip.pts), clip.width, clip.height, fps, clip.codec)


# --- Which frames ---


@dataclass(frozen=True)
class _Clip:
    """A file's video stream: its size as shown, and when each frame is shown, counted in ticks."""

    path: PathLike  # as the caller wrote it
    format: str  # first of the names that FFmpeg gives it: "mov", "matroska", "avi", ...
    codec: str
    width: int
    height: int
    tick: float  # seconds
    duration: float  # seconds
    pts: np.ndarray  # (frames,) int64 ticks, ascending
    keys: np.ndarray  # (keyframes,) int64 ticks: the frames at which decoding can begin
    decord_agrees: bool  # decord numbers the frames as `pts` does

    def seconds(self, pts: np.ndarray) -> np.ndarray:
        return (pts - self.pts[0]) * self.tick


def _check_arguments(n: int, size: int | None, start: float | None, end: float | None) -> None:
    if n < 1:
        raise InputError(f"n={n} asks for no frame; give n >= 1.")
    if size is not None and size < 1:
        raise InputError(f"size={size} leaves no pixel; give size >= 1.")
    if not 0 <= (start or 0.0) < (math.inf if end is None else end):  # refuses NaN too
        raise InputError(f"start={start}, end={end} is no part of a clip; give seconds with 0 <= start < end.")


def _shown_in_segments(clip: _Clip, within: np.ndarray, start: float, end: float) -> np.ndarray:
    """(n,) int64: positions in clip.pts, ascending, of what is shown `within` (n,) each of n segments."""
    n = len(within)
    if start and start >= clip.duration:
        raise InputError(
            f"start={start:g} lies past the end of {_name(clip.path)}, which lasts {clip.duration:.2f} s; "
            "choose an earlier start."
        )
    moments = start + (np.arange(n) + within) * (min(end, clip.duration) - start) / n
    times, step = clip.seconds(clip.pts), clip.duration / len(clip.pts)
    # Files round times to ticks (Matroska: 1 ms), which can stamp a frame just after the mid-point at which it
    # begins. Where that explains all unevenness, the frame rate is constant and the unrounded times are known.
    even = np.arange(len(times)) * step
    if np.abs(times - even).max() <= min(1.5 * clip.tick, 0.25 * step):
        times = even
    return np.searchsorted(times, moments + 1e-6 * step, side="right") - 1


def _scaled(width: int, height: int, size: int | None) -> tuple[int, int]:
    shorter = min(width, height)
    if size is None or size >= shorter:
        return width, height
    return max(1, round(width * size / shorter)), max(1, round(height * size / shorter))


# --- What the file says about itself ---


def _read_clip(path: PathLike) -> _Clip:
    """Lists the packets of the video stream, which takes milliseconds for a clip, and decodes one frame."""
    rows: list[tuple[int, int, int, bool]] = []  # time, decoding time, duration, keyframe; in file order
    whole = True
    first: VideoFrame | None = None
    with _opened(path) as (container, stream):
        format_name = container.format.name.split(",")[0]
        for packet in _packets(container, stream):
            if packet is not None:
                # AVI has no presentation times. FFmpeg guesses them, out of order; those of decoding will do.
                time = packet.dts if format_name == "avi" else packet.pts
                if time is None or packet.is_discard:  # edited out, and only there to decode what follows
                    whole = False
                else:
                    decoding = time if packet.dts is None else packet.dts
                    rows.append((time, decoding, packet.duration or 0, packet.is_keyframe))
            if first is None:  # only a decoded frame tells the rotation
                first = next(_decoded(stream, packet), None)
        whole = whole and stream.frames in (0, len(rows))
        codec = stream.codec_context.codec.canonical_name
        tick, rate = float(stream.time_base or 1), float(stream.average_rate or 0)
    if first is None:
        raise VideoError(f"{_name(path)} holds no frame that can be decoded; get it again, or convert it to mp4.")
    if not rows:
        raise VideoError(f"{_name(path)} does not say when its frames are shown; convert it to mp4.")

    table = np.array(rows, np.int64)
    pts, order = np.unique(table[:, 0], return_index=True)
    last = float(table[order[-1], 2])  # how long the last frame is shown, which some formats do not say
    if not last:
        last = float(np.median(np.diff(pts))) if len(pts) > 1 else 1 / (rate * tick) if rate else 0.0
    sideways = first.rotation % 180 == 90
    return _Clip(
        path=path,
        format=format_name,
        codec=codec,
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        tick=tick,
        duration=float(pts[-1] - pts[0] + last) * tick,
        pts=pts,
        keys=table[table[:, 3] == 1, 0],
        decord_agrees=format_name == "mov" and whole and len(pts) == len(rows) and _decord_seeks(table, order),
    )


def _decord_seeks(table: np.ndarray, order: np.ndarray) -> bool:
    """Whether decord 0.6 finds the frames of this mp4; elsewhere it returns other frames without a word.

    decord numbers keyframes in file order but frames in order of time: they differ once a frame is stored
    after a keyframe and shown before it (open GOP, usual in HEVC). And it seeks by the time a keyframe is
    shown among the times at which keyframes are decoded, so the next one must not be decoded before that.
    It also goes astray in edited mp4 files, Matroska, AVI and MPEG streams, which never get here.
    """
    keys = np.flatnonzero(table[:, 3])
    shown, decoded = table[keys, 0], table[keys, 1]
    return 0 in keys and np.array_equal(order[keys], keys) and bool((decoded[1:] > shown[:-1]).all())


# --- decord ---


def _read_with_decord(clip: _Clip, numbers: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """(len(numbers), height, width, 3) uint8; None where decord is missing, fails or cannot be relied on."""
    if not clip.decord_agrees:
        return None
    # PyAV is loaded by now, and must be: loaded after decord, its codecs bind to decord's old ones and fail.
    try:
        import decord
    except (ImportError, OSError):  # OSError: its native library does not load
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # One batch, and the reader ends with this call: an idle one decodes on and grows by gigabytes.
        reader = decord.VideoReader(
            os.path.abspath(clip.path),
            ctx=decord.cpu(0),
            width=width,
            height=height,
            num_threads=_THREADS,
            fault_tol=1e-9,  # fail rather than show a neighbour in place of a damaged frame
        )
        if len(reader) != len(clip.pts):
            return None
        batch = reader.get_batch(numbers)
        # The calling program may have told decord to return another library's arrays.
        return batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)
    except Exception:  # of many kinds, all with the same remedy
        return None
    finally:
        decord.logging.set_level(decord.logging.ERROR)  # as decord sets it on import


# --- PyAV ---


def _read_with_pyav(clip: _Clip, targets: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(len(targets), height, width, 3) uint8 and the pts of each: a lost frame shows the one before it."""
    from av import FFmpegError

    for seek in (True, False) if clip.format in _EXACT_SEEK else (False,):
        try:
            shown = [(_upright_rgb(frame, width, height), frame.pts) for frame in _walk(clip, targets, seek)]
        except FFmpegError:  # a seek failed, or a filter did
            continue
        if len(shown) == len(targets):
            return np.stack([image for image, _ in shown]), np.array([pts for _, pts in shown], np.int64)
    raise VideoError(f"{_name(clip.path)} cannot be decoded; convert it to H.264, or export it again.")


def _walk(clip: _Clip, targets: np.ndarray, seek: bool) -> Iterator[VideoFrame]:
    """The frame shown at each of the ascending targets; ends early where a seek went wrong.

    Decodes forward, holding two frames; with `seek`, jumps ahead to the last keyframe before a target.
    """
    with _opened(clip.path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _THREADS
        frames = _frames(clip, container, stream)
        shown, ahead = None, next(frames, None)
        for target in targets:
            key = clip.keys[clip.keys <= target].max(initial=clip.pts[0])
            reached = ahead or shown
            if seek and (reached is None or key > reached.pts):
                container.seek(int(key), stream=stream)
                frames = _frames(clip, container, stream)
                shown, ahead = None, next(frames, None)
            while ahead is not None and ahead.pts <= target:
                shown, ahead = ahead, next(frames, None)
            frame = shown if seek else shown or ahead  # where the start is lost, show what follows
            if frame is None:
                return
            yield frame


def _frames(clip: _Clip, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    frames = (frame for packet in _packets(container, stream) for frame in _decoded(stream, packet))
    if clip.format == "avi":  # see _read_clip
        for frame, pts in zip(frames, clip.pts.tolist(), strict=False):
            frame.pts = pts
            yield frame
    else:
        yield from (frame for frame in frames if frame.pts is not None)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
    """The stream's packets as far as they can be read, then None, which makes the decoder give the rest."""
    from av import FFmpegError

    try:
        for packet in container.demux(stream):
            # An empty one, by which AVI repeats a frame, would end the decoding. A corrupt one is cut off.
            if packet.size and not packet.is_corrupt:
                yield packet
    except FFmpegError:
        pass
    yield None


def _decoded(stream: VideoStream, packet: Packet | None) -> Iterator[VideoFrame]:
    """The frames that a packet completes; none where it is damaged."""
    from av import FFmpegError

    try:
        frames = stream.decode(packet)
    except FFmpegError:
        return
    yield from frames


def _upright_rgb(frame: VideoFrame, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8, through the filters that decord uses: its pixels to the last bit."""
    from av.filter import Graph

    turns = {90: ["cclock"], 180: ["clock", "clock"], 270: ["clock"]}.get(frame.rotation % 360, [])
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        *(graph.add("transpose", turn) for turn in turns),
        graph.add("scale", f"{width}:{height}:flags=bilinear"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    graph.vpush(frame)
    return graph.vpull().to_ndarray()


# --- Opening, or saying why not ---


@contextmanager
def _opened(path: PathLike) -> Iterator[tuple[InputContainer, VideoStream]]:
    import av
    from av.stream import Disposition
    from av.video.stream import VideoStream

    _check_is_file(path)
    # An absolute path is never taken for a URL, and a playlist that poses as a video reaches no network.
    options = {"protocol_whitelist": "file"}
    try:
        container = av.open(os.path.abspath(path), metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, PermissionError):
            raise VideoError(f"{_name(path)} may not be read; change its permissions.") from None
        raise VideoError(_why_not_opened(path)) from None
    with container:
        stream = container.streams.best("video")
        if stream is None and not container.streams.audio:
            raise VideoError(_why_not_opened(path))
        if (
            not isinstance(stream, VideoStream)
            or stream.disposition & Disposition.attached_pic  # the cover of a song
            or container.format.name == "tty"  # any text file named .txt
        ):
            raise VideoError(f"{_name(path)} holds no video, only sound or text; choose a video file.")
        if stream.codec_context is None:
            raise VideoError(f"{_name(path)} has an unknown video codec, or is cut off; export it again as H.264.")
        yield container, stream


def _check_is_file(path: PathLike) -> None:
    if not os.path.exists(path):
        raise VideoError(f"{_name(path)} does not exist; check the path.")
    if os.path.isdir(path):
        raise VideoError(f"{_name(path)} is a folder; name a video file in it.")
    if not os.path.isfile(path):
        raise VideoError(f"{_name(path)} is not a regular file; copy the video into one.")
    if os.path.getsize(path) == 0:
        raise VideoError(f"{_name(path)} is empty (0 bytes); copy or export it again.")


def _why_not_opened(path: PathLike) -> str:
    with open(path, "rb") as file:
        if file.read(8)[4:] == b"ftyp":
            return f"{_name(path)} is cut off: the index at the end of the mp4 is missing; get it again."
    return f"{_name(path)} is no video that can be read; check that it is one, and complete."


def _name(path: PathLike) -> str:
    return os.fsencode(path).decode("utf-8", "replace")

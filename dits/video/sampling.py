"""Frame sampling: which frames of a video file are read, and their pixels.

decord reads a file if it is known to return the right frames; PyAV reads all others. The frames are chosen beforehand
from the presentation times in the file, so both decoders return the same frames, scaled by the same filter.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dits.common.errors import InputError, VideoError
from dits.video.probe import PathLike, Video, VideoInfo, decoded, inspect_video, name_of, opened, packets

if TYPE_CHECKING:  # imported when used, so that importing this module is fast
    from av import VideoFrame
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.stream import VideoStream

_THREADS = 2  # more gain little for a dozen frames, and several processes read a corpus in parallel
_EXACT_SEEK = ("mov", "matroska")  # formats with exact seeks: mp4, mov, mkv, webm
_MAX_JPEG = 65500  # pixels, libjpeg's limit


@dataclass(frozen=True)
class SampledFrames:
    """Frames of one clip; unpacks as `frames, times = sample_frames(...)`."""

    frames: np.ndarray  # (n, H, W, 3) uint8 RGB, upright
    times: np.ndarray  # (n,) float64, seconds from the file's first frame
    decoder: str  # "decord" or "pyav"

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.frames, self.times))


def sample_frames(
    path: PathLike,
    n: int = 12,
    *,
    size: int | None = None,
    start: float | None = None,
    end: float | None = None,
    positions: np.ndarray | None = None,
) -> SampledFrames:
    """Sample the frames at the mid-points of n equal parts of a clip.

    The mid-points are points in time, so a variable frame rate is sampled evenly. A clip with fewer than n frames
    repeats frames, in order.

    Args:
        size: the length of the shorter side in pixels; smaller videos are not enlarged. None keeps the file's size.
        start, end: the clip in seconds from the first frame. An `end` past the last frame becomes the end of the file.
        positions: (n,) from 0 to below 1: where to sample in each part, instead of the middle.

    Raises:
        InputError: an argument is out of range, or `start` is past the end of the file.
        VideoError: the file cannot be read.
    """
    span = (start or 0.0, math.inf if end is None else end)
    _check_arguments(n, size, [span])
    video = inspect_video(path)
    [sampled] = _sample(video, _frame_numbers(video, [span], np.full(n, 0.5) if positions is None else positions), size)
    return sampled


def sample_spans(
    video: Video, spans: Sequence[tuple[float, float]], n: int = 12, *, size: int | None = None
) -> Iterator[SampledFrames]:
    """Apply `sample_frames` to each (start, end), one after the other, in one pass over the file.

    The limits are in seconds; segments are in order and do not overlap. If the file is damaged, the frames of a segment
    can differ from those of `sample_frames`, because decoding started further back.

    Raises InputError and VideoError like `sample_frames`; the iterator raises VideoError.
    """
    _check_arguments(n, size, spans)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise InputError(
                f"A segment starts at {start:g} s, before the end of the previous one at {end:g} s; put them in order."
            )
    return _sample(video, _frame_numbers(video, spans, np.full(n, 0.5)), size) if len(spans) else iter(())


def every_frame(video: Video, size: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame that can be decoded, in order: its time in seconds, and its pixels (H, W, 3), uint8."""
    width, height = _output_size(video.info, size)
    rgb = _UprightRgb(width, height)
    with opened(video.path) as (container, stream):
        _use_threads(stream)
        for frame in _frames(video, container, stream):
            yield float(video.seconds(np.array(frame.pts))), rgb(frame)


def probe(path: PathLike) -> VideoInfo:
    """Duration, size and codec of a video file. Decodes one frame; raises VideoError if the file cannot be read."""
    return inspect_video(path).info


def thumbnail(frame: np.ndarray, width: int = 160) -> bytes:
    """A small JPEG of a frame (H, W, 3), uint8: `width` pixels wide, same aspect ratio within JPEG's size limit."""
    height = min(max(1, round(frame.shape[0] * width / frame.shape[1])), _MAX_JPEG)
    jpeg = io.BytesIO()
    Image.fromarray(frame).resize((width, height), Image.Resampling.BOX).save(jpeg, "JPEG", quality=80)
    return jpeg.getvalue()


# --- Which frames ---


def _check_arguments(n: int, size: int | None, spans: Sequence[tuple[float, float]]) -> None:
    if n < 1:
        raise InputError(f"n={n} is too small; give n >= 1.")
    if size is not None and size < 1:
        raise InputError(f"size={size} is too small; give size >= 1.")
    for start, end in spans:
        if not 0 <= start < end:  # also rejects NaN
            raise InputError(f"start={start}, end={end} is not a valid range; give seconds with 0 <= start < end.")


def _frame_numbers(video: Video, spans: Sequence[tuple[float, float]], positions: np.ndarray) -> np.ndarray:
    """(spans, n) int64, ascending: indices into video.pts for the `positions` (n,) in the n parts of each span."""
    duration, frames, n = video.info.duration, video.info.frames, len(positions)
    starts, ends = np.array(spans, np.float64).reshape(-1, 2, 1).swapaxes(0, 1)  # (spans, 1) each
    for start in starts[(starts > 0) & (starts >= duration)]:
        raise InputError(
            f"start={start:g} is past the end of {name_of(video.path)}, which lasts {duration:.2f} s; "
            "choose an earlier start."
        )
    times = starts + (np.arange(n) + positions) * (np.minimum(ends, duration) - starts) / n
    return np.searchsorted(video.times(), times + 1e-6 * duration / frames, side="right") - 1


def _output_size(info: VideoInfo, size: int | None) -> tuple[int, int]:
    shorter = min(info.width, info.height)
    if size is None or size >= shorter:
        return info.width, info.height
    return max(1, round(info.width * size / shorter)), max(1, round(info.height * size / shorter))


def _sample(video: Video, frame_numbers: np.ndarray, size: int | None) -> Iterator[SampledFrames]:
    """Read the frames of `_frame_numbers`, span by span."""
    width, height = _output_size(video.info, size)
    unique = [np.unique(span, return_inverse=True) for span in frame_numbers]  # each frame is read once
    if len(unique) == 1 and (frames := _read_with_decord(video, unique[0][0], width, height)) is not None:
        numbers, repeats = unique[0]
        yield SampledFrames(_repeat(frames, repeats), video.seconds(video.pts[numbers])[repeats], "decord")
        return
    spans = _read_with_pyav(video, [video.pts[numbers] for numbers, _ in unique], width, height)
    for (_, repeats), (frames, pts) in zip(unique, spans, strict=True):
        yield SampledFrames(_repeat(frames, repeats), video.seconds(pts)[repeats], "pyav")


def _repeat(frames: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    return frames if len(frames) == len(repeats) else frames[repeats]


# --- decord ---


def _read_with_decord(video: Video, numbers: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """(len(numbers), height, width, 3) uint8; None if decord is missing, fails or is not reliable for this file."""
    if not video.decord_agrees:
        return None
    # PyAV must be loaded before decord, and is: otherwise its codecs bind to decord's old ones and fail.
    try:
        import decord
    except (ImportError, OSError):  # OSError: its native library cannot be loaded
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return _decord_batch(video, numbers, width, height)
    finally:
        decord.logging.set_level(decord.logging.ERROR)  # as decord sets it on import


def _decord_batch(video: Video, numbers: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """See `_read_with_decord`. A function of its own, so that the reader and its logging threads end with the call."""
    import decord

    try:
        # Read a single batch: the memory of an idle reader grows by gigabytes.
        reader = decord.VideoReader(
            os.path.abspath(video.path),
            ctx=decord.cpu(0),
            width=width,
            height=height,
            num_threads=_THREADS,
            fault_tol=1e-9,  # fail instead of replacing a damaged frame by its neighbour
        )
        if len(reader) != len(video.pts):
            return None
        batch = reader.get_batch(numbers)
        # The calling program may have configured decord to return arrays of another library.
        return batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)
    except Exception:  # of many classes; PyAV reads the file instead
        return None


# --- PyAV ---


def _read_with_pyav(
    video: Video, targets: Sequence[np.ndarray], width: int, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each target, an array of ticks: the frames (len(target), height, width, 3), uint8, and their pts.

    Ticks ascend within and across targets. A lost frame is replaced by the previous one. After a wrong seek, the rest
    is read without seeks. Raises VideoError if the file cannot be decoded.
    """
    from av import FFmpegError

    done = 0
    for seek in (True, False) if video.format in _EXACT_SEEK else (False,):
        rgb = _UprightRgb(width, height)
        try:
            with closing(_frames_at(video, np.concatenate(targets[done:]), seek)) as frames:
                for target in targets[done:]:
                    images = [(rgb(frame), frame.pts) for frame in islice(frames, len(target))]
                    if len(images) < len(target):
                        break
                    yield np.stack([image for image, _ in images]), np.array([pts for _, pts in images], np.int64)
                    done += 1
        except FFmpegError:  # of a seek or a filter
            pass
        if done == len(targets):
            return
    raise VideoError(f"{name_of(video.path)} cannot be decoded; convert it to H.264, or export it again.")


def _frames_at(video: Video, targets: np.ndarray, seek: bool) -> Generator[VideoFrame]:
    """The frame presented at each target (ascending ticks); ends early after a wrong seek.

    Decodes forward and holds two frames. If `seek`, jumps forward to the last keyframe before a target.
    """
    keys = video.keys[np.searchsorted(video.keys, targets, side="right") - 1]
    with opened(video.path) as (container, stream):
        _use_threads(stream)
        frames = _frames(video, container, stream)
        current, following = None, next(frames, None)
        for target, key in zip(targets.tolist(), keys.tolist(), strict=True):
            latest = following or current
            if seek and (latest is None or key > latest.pts):
                container.seek(key, stream=stream)
                frames = _frames(video, container, stream)
                current, following = None, next(frames, None)
            while following is not None and following.pts <= target:
                current, following = following, next(frames, None)
            frame = current if seek else current or following  # if the first frames are lost, use the next one
            if frame is None:
                return
            yield frame


def _use_threads(stream: VideoStream) -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _THREADS


def _frames(video: Video, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    frames = (frame for packet in packets(container, stream) for frame in decoded(stream, packet))
    if video.format == "avi":  # see `inspect_video`
        for frame, pts in zip(frames, video.pts.tolist(), strict=False):
            frame.pts = pts
            yield frame
    else:
        yield from (frame for frame in frames if frame.pts is not None)


class _UprightRgb:
    """Converts frames to (height, width, 3), uint8, with decord's filters: identical pixels to the last bit."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._input_format: tuple[object, ...] = ()
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        colours = (frame.format.name, frame.colorspace, frame.color_range)
        input_format = (frame.width, frame.height, *colours, frame.rotation % 360)
        if self._graph is None or input_format != self._input_format:  # rarely: most files have one format
            self._input_format, self._graph = input_format, self._build_graph(frame)
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()

    def _build_graph(self, frame: VideoFrame) -> Graph:
        from av.filter import Graph

        turns = {90: ["cclock"], 180: ["clock", "clock"], 270: ["clock"]}.get(frame.rotation % 360, [])
        graph = Graph()
        graph.link_nodes(
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
            *(graph.add("transpose", turn) for turn in turns),
            graph.add("scale", f"{self.width}:{self.height}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ).configure()
        return graph

"""Frames of a video file: which ones are wanted, and their pixels.

decord reads a clip where it is known to return the right frames, PyAV everything else. Which frames are
wanted is decided before either runs, from the presentation times that the file itself lists, so both return
the same frames, scaled by the same filter.
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
from dits.video.probe import PathLike, Video, VideoInfo, decoded, examine, name_of, opened, packets

if TYPE_CHECKING:  # imported where it is used, so that importing this module is quick
    from av import VideoFrame
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.stream import VideoStream

_THREADS = 2  # more gain little for a dozen frames, and a corpus is read by several processes at once
_EXACT_SEEK = ("mov", "matroska")  # the formats (mp4, mov, mkv, webm) in which a seek ends where it should
_MAX_JPEG = 65500  # pixels, libjpeg's own limit


@dataclass(frozen=True)
class SampledFrames:
    """Frames of one clip; unpacks as `frames, times = sample_frames(...)`."""

    frames: np.ndarray  # (n, H, W, 3) uint8 RGB, upright
    times: np.ndarray  # (n,) float64, seconds from the clip's first frame to the frame shown
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
    """The frames shown at the mid-points of n equal segments of a clip, or of its seconds `start` to `end`.

    Mid-points are points in time, so a variable frame rate is sampled evenly; a clip of fewer than n frames
    repeats frames, in order. `size` scales the shorter side to that many pixels, aspect ratio kept; a clip
    that is smaller is not enlarged, and None keeps the file's own size. `start` and `end` count from the
    first frame; an `end` past the last frame means the end of the last frame. `positions` (n,) from 0 to below 1
    say where in each segment to look, instead of the middle.

    Raises InputError for an argument out of range (also a `start` past the end of the clip) and VideoError
    for a file that cannot be read.
    """
    span = (start or 0.0, math.inf if end is None else end)
    _check_arguments(n, size, [span])
    video = examine(path)
    [sampled] = _sampled(video, _shown(video, [span], np.full(n, 0.5) if positions is None else positions), size)
    return sampled


def sample_spans(
    video: Video, spans: Sequence[tuple[float, float]], n: int = 12, *, size: int | None = None
) -> Iterator[SampledFrames]:
    """What `sample_frames` returns of each (start, end), read in one pass over the file, a span at a time.

    Spans are in seconds, ascending, and do not overlap. Where a file is damaged, a span can show a frame that
    decoding from further back saved, or lost.

    Raises InputError and VideoError as `sample_frames` does; the latter from the iterator.
    """
    _check_arguments(n, size, spans)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise InputError(
                f"A span begins at {start:g} s, before the end of the last at {end:g} s; put them in order."
            )
    return _sampled(video, _shown(video, spans, np.full(n, 0.5)), size) if len(spans) else iter(())


def every_frame(video: Video, size: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame that can be decoded, in order: the second at which it is shown, and its (H, W, 3) uint8 pixels."""
    width, height = _scaled(video.info, size)
    rgb = _UprightRgb(width, height)
    with opened(video.path) as (container, stream):
        _use_threads(stream)
        for frame in _frames(video, container, stream):
            yield float(video.seconds(np.array(frame.pts))), rgb(frame)


def probe(path: PathLike) -> VideoInfo:
    """Length, size and codec of a video file. Decodes one frame; raises VideoError as sample_frames does."""
    return examine(path).info


def thumbnail(frame: np.ndarray, width: int = 160) -> bytes:
    """A small JPEG of a (H, W, 3) uint8 frame: `width` pixels wide, aspect ratio kept as far as a JPEG can."""
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    picture = io.BytesIO()
    Image.fromarray(frame).resize((width, min(height, _MAX_JPEG)), Image.Resampling.BOX).save(
        picture, "JPEG", quality=80
    )
    return picture.getvalue()


# --- Which frames ---


def _check_arguments(n: int, size: int | None, spans: Sequence[tuple[float, float]]) -> None:
    if n < 1:
        raise InputError(f"n={n} asks for no frame; give n >= 1.")
    if size is not None and size < 1:
        raise InputError(f"size={size} leaves no pixel; give size >= 1.")
    for start, end in spans:
        if not 0 <= start < end:  # refuses NaN too
            raise InputError(f"start={start}, end={end} is no part of a clip; give seconds with 0 <= start < end.")


def _shown(video: Video, spans: Sequence[tuple[float, float]], within: np.ndarray) -> np.ndarray:
    """(spans, n) int64: positions in video.pts, ascending, of what is shown `within` (n,) each of a span's segments."""
    duration, frames, n = video.info.duration, video.info.frames, len(within)
    starts, ends = np.array(spans, np.float64).reshape(-1, 2, 1).swapaxes(0, 1)  # (spans, 1) each
    for start in starts[(starts > 0) & (starts >= duration)]:
        raise InputError(
            f"start={start:g} lies past the end of {name_of(video.path)}, which lasts {duration:.2f} s; "
            "choose an earlier start."
        )
    moments = starts + (np.arange(n) + within) * (np.minimum(ends, duration) - starts) / n
    return np.searchsorted(video.times(), moments + 1e-6 * duration / frames, side="right") - 1


def _scaled(info: VideoInfo, size: int | None) -> tuple[int, int]:
    shorter = min(info.width, info.height)
    if size is None or size >= shorter:
        return info.width, info.height
    return max(1, round(info.width * size / shorter)), max(1, round(info.height * size / shorter))


def _sampled(video: Video, shown: np.ndarray, size: int | None) -> Iterator[SampledFrames]:
    """The frames at the positions (spans, n) in video.pts, which ascend from span to span."""
    width, height = _scaled(video.info, size)
    unique = [np.unique(span, return_inverse=True) for span in shown]  # each frame is read once
    if len(unique) == 1 and (frames := _read_with_decord(video, unique[0][0], width, height)) is not None:
        numbers, repeats = unique[0]
        yield SampledFrames(_repeated(frames, repeats), video.seconds(video.pts[numbers])[repeats], "decord")
        return
    read = _read_with_pyav(video, [video.pts[numbers] for numbers, _ in unique], width, height)
    for (_, repeats), (frames, pts) in zip(unique, read, strict=True):
        yield SampledFrames(_repeated(frames, repeats), video.seconds(pts)[repeats], "pyav")


def _repeated(frames: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    return frames if len(frames) == len(repeats) else frames[repeats]


# --- decord ---


def _read_with_decord(video: Video, numbers: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """(len(numbers), height, width, 3) uint8; None where decord is missing, fails or cannot be relied on."""
    if not video.decord_agrees:
        return None
    # PyAV is loaded by now, and must be: loaded after decord, its codecs bind to decord's old ones and fail.
    try:
        import decord
    except (ImportError, OSError):  # OSError: its native library does not load
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return _decord_batch(video, numbers, width, height)
    finally:
        decord.logging.set_level(decord.logging.ERROR)  # as decord sets it on import


def _decord_batch(video: Video, numbers: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """As _read_with_decord; a call of its own, with which the reader ends, and its threads, which report what they
    find.
    """
    import decord

    try:
        # One batch, and no more: an idle reader grows by gigabytes.
        reader = decord.VideoReader(
            os.path.abspath(video.path),
            ctx=decord.cpu(0),
            width=width,
            height=height,
            num_threads=_THREADS,
            fault_tol=1e-9,  # fail rather than show a neighbour in place of a damaged frame
        )
        if len(reader) != len(video.pts):
            return None
        batch = reader.get_batch(numbers)
        # The calling program may have told decord to return another library's arrays.
        return batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)
    except Exception:  # of many kinds, all with the same remedy
        return None


# --- PyAV ---


def _read_with_pyav(
    video: Video, targets: Sequence[np.ndarray], width: int, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each of the targets, ticks that ascend throughout: (len(target), height, width, 3) uint8 and the pts of each.

    A lost frame shows the one before it. A seek that goes wrong is the last one: the rest is read without.
    """
    from av import FFmpegError

    done = 0
    for seek in (True, False) if video.format in _EXACT_SEEK else (False,):
        rgb = _UprightRgb(width, height)
        try:
            with closing(_walk(video, np.concatenate(targets[done:]), seek)) as walk:
                for wanted in targets[done:]:
                    shown = [(rgb(frame), frame.pts) for frame in islice(walk, len(wanted))]
                    if len(shown) < len(wanted):
                        break
                    yield np.stack([image for image, _ in shown]), np.array([pts for _, pts in shown], np.int64)
                    done += 1
        except FFmpegError:  # a seek failed, or a filter did
            pass
        if done == len(targets):
            return
    raise VideoError(f"{name_of(video.path)} cannot be decoded; convert it to H.264, or export it again.")


def _walk(video: Video, targets: np.ndarray, seek: bool) -> Generator[VideoFrame]:
    """The frame shown at each of the ascending targets; ends early where a seek went wrong.

    Decodes forward, holding two frames; with `seek`, jumps ahead to the last keyframe before a target.
    """
    keys = video.keys[np.searchsorted(video.keys, targets, side="right") - 1]
    with opened(video.path) as (container, stream):
        _use_threads(stream)
        frames = _frames(video, container, stream)
        shown, ahead = None, next(frames, None)
        for target, key in zip(targets.tolist(), keys.tolist(), strict=True):
            reached = ahead or shown
            if seek and (reached is None or key > reached.pts):
                container.seek(key, stream=stream)
                frames = _frames(video, container, stream)
                shown, ahead = None, next(frames, None)
            while ahead is not None and ahead.pts <= target:
                shown, ahead = ahead, next(frames, None)
            frame = shown if seek else shown or ahead  # where the start is lost, show what follows
            if frame is None:
                return
            yield frame


def _use_threads(stream: VideoStream) -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _THREADS


def _frames(video: Video, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    frames = (frame for packet in packets(container, stream) for frame in decoded(stream, packet))
    if video.format == "avi":  # see examine
        for frame, pts in zip(frames, video.pts.tolist(), strict=False):
            frame.pts = pts
            yield frame
    else:
        yield from (frame for frame in frames if frame.pts is not None)


class _UprightRgb:
    """Frames as (height, width, 3) uint8, through the filters that decord uses: its pixels to the last bit."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._kind: tuple[object, ...] = ()
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        colours = (frame.format.name, frame.colorspace, frame.color_range)
        kind = (frame.width, frame.height, *colours, frame.rotation % 360)
        if self._graph is None or kind != self._kind:  # made once for a file whose frames are all of a kind
            self._kind, self._graph = kind, self._made_for(frame)
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()

    def _made_for(self, frame: VideoFrame) -> Graph:
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

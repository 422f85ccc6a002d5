"""Small videos whose frames show their number, for tests of which frame was returned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_ROWS, _COLUMNS = 3, 4  # 12 blocks: numbers up to 4095
# Stamps differ so much that x264 would take each for a new scene, and start it with a keyframe.
_DEFAULTS = {"libx264": {"preset": "veryfast", "sc_threshold": "0"}}


def stamp(number: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3), uint8: the number in binary, as 4 x 3 black and white blocks that survive compression."""
    bits = np.array([number >> bit & 1 for bit in range(_ROWS * _COLUMNS)]).reshape(_ROWS, _COLUMNS)
    rows, columns = np.arange(height) * _ROWS // height, np.arange(width) * _COLUMNS // width
    gray = np.where(bits[rows][:, columns], 230, 25).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def read_stamp(frame: np.ndarray) -> int:
    """The number that `stamp` drew, read from the middles of the blocks; the frame may have been scaled."""
    height, width = frame.shape[:2]
    rows = (2 * np.arange(_ROWS) + 1) * height // (2 * _ROWS)
    columns = (2 * np.arange(_COLUMNS) + 1) * width // (2 * _COLUMNS)
    bits = frame[np.ix_(rows, columns)].mean(axis=2).ravel() > 127
    return int((bits * 2 ** np.arange(bits.size)).sum())


def read_stamps(frames: np.ndarray) -> list[int]:
    return [read_stamp(frame) for frame in frames]


def write_video(
    path: Path,
    frames: int | Sequence[np.ndarray] = 30,
    *,
    size: tuple[int, int] = (160, 120),
    fps: int = 30,
    times: Sequence[int] | None = None,
    codec: str = "libx264",
    gop: int = 12,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Writes stamped frames, or the given images, and returns the path; its suffix chooses the format.

    `times`: when each frame is shown, in units of 1 / fps (default 0, 1, 2, ...). `rotation`: degrees
    counter-clockwise by which a player turns the picture.
    """
    images = [stamp(k, *size) for k in range(frames)] if isinstance(frames, int) else frames
    height, width = images[0].shape[:2]
    with _scheduled_as_before(), av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=fps, options={**_DEFAULTS.get(codec, {}), **(options or {})})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.gop_size = gop
        stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
        if rotation:
            stream.set_display_rotation(rotation)
        for image, time in zip(images, times or range(len(images)), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """Restore the scheduling policy. When root encodes AV1, SVT-AV1 makes the calling thread real-time: it and every
    process that it starts would block the rest of the machine.
    """
    if not hasattr(os, "sched_getscheduler"):  # as on macOS
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, priority)


def write_sound(path: Path) -> Path:
    """Half a second of silence, without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        for k in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, k * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(source: Path, target: Path, share: float) -> Path:
    """The first `share` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target

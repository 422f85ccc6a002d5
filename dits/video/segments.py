"""Where a video is cut into the pieces that a search finds: nowhere, every so many seconds, or where scenes change."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dits.common.errors import DitsError, InputError
from dits.video.probe import Video, name_of
from dits.video.sampling import every_frame

Span = tuple[float, float]
"""Start and end, in seconds from a video's first frame."""

MIN_SCENE_SECONDS = 1.0
"""Seconds. A shorter one, such as a flash, joins its neighbour."""

MAX_SCENE_SECONDS = 60.0
"""Seconds. A longer one is cut into equal parts: twelve frames say little of more."""

MAX_SPANS = 100_000
"""Of one video: a day in seconds. A file can claim to last for ages, and a length be given as next to nothing."""

_SCENE_PIXELS = 64  # of the shorter side of the frames that are compared
_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s", re.ASCII)


@dataclass(frozen=True)
class Segmenting:
    """How videos are cut; `str` gives back what `parse` takes.

    Attributes:
        by: "whole", "length" or "scenes".
        seconds: of every piece, where it is by length.
    """

    by: str
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Segmenting:
        """From "whole", "scenes", or a length such as "10s" or "2.5s"; raises InputError for anything else."""
        if text in ("whole", "scenes"):
            return cls(text)
        length = _LENGTH.fullmatch(text)
        if length and 0 < float(length[1]) < math.inf:
            return cls("length", float(length[1]))
        raise InputError(f'Videos cannot be cut by "{text}"; give whole, scenes, or a number of seconds such as 10s.')

    def __str__(self) -> str:
        return self.by if self.seconds is None else f"{np.format_float_positional(self.seconds, trim='-')}s"


def spans(video: Video, segmenting: Segmenting) -> list[Span]:
    """The pieces of a video, in order: each begins where the last one ends, and together they cover it.

    By length, all last as long, but for the end: a rest of less than half a piece joins the last one, which then
    lasts up to one and a half. By scenes, see MIN_SCENE_SECONDS and MAX_SCENE_SECONDS; what cannot be decoded holds no
    cut.

    Raises InputError for a length that makes more than MAX_SPANS, VideoError for a file that cannot be opened (any
    more), and DitsError where PySceneDetect is missing.
    """
    duration = video.info.duration or video.tick  # a picture may have none; it is shown at any moment
    if segmenting.by == "whole":
        edges = np.array([0.0, duration])
    elif segmenting.seconds is not None:
        edges = _by_length(video, duration, segmenting.seconds)
    else:
        edges = _by_scenes(video, duration, scene_cuts(video))
    return list(pairwise(edges.tolist()))


def scene_cuts(video: Video) -> list[float]:
    """The seconds at which a new scene begins, ascending, as PySceneDetect's adaptive detector sees it.

    Decodes the whole video. Where frames are missing or damaged no cut is found, and nothing is raised.
    """
    from av import FFmpegError

    try:
        import cv2
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        raise DitsError(
            f"Cutting where scenes change needs PySceneDetect, which does not load ({error}): "
            "pip install scenedetect, and the system's libgl1 if that is missing, or cut by a length such as 10s."
        ) from error

    detector = AdaptiveDetector(min_scene_len=0)  # short scenes are joined later, by seconds
    times: list[float] = []
    found: list[int] = []
    try:
        for time, frame in every_frame(video, _SCENE_PIXELS):
            # It counts frames, at whatever rate, and answers some frames later. OpenCV has blue first.
            cuts = detector.process_frame(FrameTimecode(len(times), 1.0), np.ascontiguousarray(frame[..., ::-1]))
            found += [cut.frame_num for cut in cuts]
            times.append(time)
    except (FFmpegError, cv2.error):  # the cuts until then still hold
        pass
    return [times[number] for number in found]


def _by_length(video: Video, duration: float, seconds: float) -> np.ndarray:
    _check_count(video, duration, seconds)
    pieces = max(1, math.floor(duration / seconds + 0.5))
    return np.append(np.arange(pieces) * seconds, duration)


def _by_scenes(video: Video, duration: float, cuts: list[float]) -> np.ndarray:
    _check_count(video, duration, MAX_SCENE_SECONDS)
    edges = [0.0]
    for cut in cuts:
        if edges[-1] + MIN_SCENE_SECONDS <= cut <= duration - MIN_SCENE_SECONDS:
            edges.append(cut)
    edges.append(duration)
    inner = [
        np.linspace(start, end, math.ceil((end - start) / MAX_SCENE_SECONDS), endpoint=False)
        for start, end in pairwise(edges)
    ]
    return np.append(np.concatenate(inner), duration)


def _check_count(video: Video, duration: float, seconds: float) -> None:
    if duration > MAX_SPANS * seconds:
        raise InputError(
            f"{name_of(video.path)} lasts {duration:.0f} s by its own account, more than {MAX_SPANS:,} pieces of "
            f"{seconds:g} s; choose longer pieces, or leave it out."
        )

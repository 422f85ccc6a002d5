"""Cuts videos into the segments that a search returns: whole videos, fixed lengths, or scenes."""

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
"""A shorter scene, such as a flash, is merged with its neighbour."""

MAX_SCENE_SECONDS = 60.0
"""A longer scene is cut into equal parts, because twelve frames cannot represent it."""

MAX_SEGMENTS = 100_000
"""Per video: over a day in segments of one second. Some files declare absurd durations, and a length can be tiny."""

_SCENE_PIXELS = 64  # shorter side of the frames for scene detection
_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s", re.ASCII)


@dataclass(frozen=True)
class Segmenting:
    """How videos are cut into segments. `str` is the inverse of `parse`.

    Attributes:
        by: "whole", "length" or "scenes".
        seconds: the length of a segment, if `by` is "length".
    """

    by: str
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Segmenting:
        """Parse "whole", "scenes", or a length such as "10s" or "2.5s"; raises InputError for anything else."""
        if text in ("whole", "scenes"):
            return cls(text)
        length = _LENGTH.fullmatch(text)
        if length and 0 < float(length[1]) < math.inf:
            return cls("length", float(length[1]))
        raise InputError(f'Videos cannot be cut by "{text}"; give whole, scenes, or a number of seconds such as 10s.')

    def __str__(self) -> str:
        return self.by if self.seconds is None else f"{np.format_float_positional(self.seconds, trim='-')}s"


def spans(video: Video, segmenting: Segmenting) -> list[Span]:
    """The segments of a video, in order, without gaps or overlaps.

    By length, all segments have the same length, except the last: a rest of less than half a length is merged into it,
    and a longer rest is a segment. By scenes, see MIN_SCENE_SECONDS and MAX_SCENE_SECONDS; parts that cannot be decoded
    have no cuts.

    Raises InputError if there would be more than MAX_SEGMENTS, VideoError if the file cannot be opened, and DitsError
    if PySceneDetect is missing.
    """
    duration = video.info.duration or video.tick  # a still image may have no duration
    if segmenting.by == "whole":
        edges = np.array([0.0, duration])
    elif segmenting.seconds is not None:
        edges = _by_length(video, duration, segmenting.seconds)
    else:
        edges = _by_scenes(video, duration, scene_cuts(video))
    return list(pairwise(edges.tolist()))


def scene_cuts(video: Video) -> list[float]:
    """The times in seconds at which new scenes start, ascending, from PySceneDetect's adaptive detector.

    Decodes the whole video. Missing or damaged frames give no cuts and no error.
    """
    from av import FFmpegError

    try:
        import cv2
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        raise DitsError(
            f"Cutting by scenes needs PySceneDetect, which cannot be loaded ({error}): "
            "pip install scenedetect, and the system's libgl1 if that is missing, or cut by a length such as 10s."
        ) from error

    detector = AdaptiveDetector(min_scene_len=0)  # short scenes are merged later, by seconds
    times: list[float] = []
    cut_frames: list[int] = []
    try:
        for time, frame in every_frame(video, _SCENE_PIXELS):
            # The detector counts frames, at any rate, and returns a cut some frames later. OpenCV's format is BGR.
            cuts = detector.process_frame(FrameTimecode(len(times), 1.0), np.ascontiguousarray(frame[..., ::-1]))
            cut_frames += [cut.frame_num for cut in cuts]
            times.append(time)
    except (FFmpegError, cv2.error):  # the earlier cuts remain valid
        pass
    return [times[number] for number in cut_frames]


def _by_length(video: Video, duration: float, seconds: float) -> np.ndarray:
    _check_count(video, duration, seconds)
    segments = max(1, math.floor(duration / seconds + 0.5))
    return np.append(np.arange(segments) * seconds, duration)


def _by_scenes(video: Video, duration: float, cuts: list[float]) -> np.ndarray:
    _check_count(video, duration, MAX_SCENE_SECONDS)
    edges = [0.0]
    for cut in cuts:
        if edges[-1] + MIN_SCENE_SECONDS <= cut <= duration - MIN_SCENE_SECONDS:
            edges.append(cut)
    edges.append(duration)
    parts = [
        np.linspace(start, end, math.ceil((end - start) / MAX_SCENE_SECONDS), endpoint=False)
        for start, end in pairwise(edges)
    ]
    return np.append(np.concatenate(parts), duration)


def _check_count(video: Video, duration: float, seconds: float) -> None:
    if duration > MAX_SEGMENTS * seconds:
        raise InputError(
            f"{name_of(video.path)} lasts {duration:.0f} s by its own account, more than {MAX_SEGMENTS:,} segments of "
            f"{seconds:g} s; choose longer segments, or leave the video out."
        )

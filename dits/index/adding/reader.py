"""Reading of files in worker processes: hash a file, cut it into segments, and decode their frames.

A file is read in jobs of a few segments. So the size of a message between processes, and the work that is lost when a
process dies, do not grow with the length of the video.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dits.common.errors import DitsError
from dits.encoders.transforms import FrameTransform
from dits.index.schema import segment_id
from dits.video.probe import Video, inspect_video, name_of
from dits.video.sampling import sample_spans, thumbnail
from dits.video.segments import Segmenting, Span, spans
from dits.video.workers import WorkerFailure, failure_reason, run_in_workers

_SEGMENTS_PER_JOB = 8
_BYTES_PER_SECOND = 10_000_000  # pace of hashing a file and listing its frames on a slow disk
_BYTES_PER_SECOND_FOR_SCENES = 500_000  # every frame is decoded to find scenes
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class ReadJob:
    """A file to read, or the rest of one.

    Attributes:
        size, mtime: at the time of the scan, in bytes and nanoseconds.
        segmenting: how to cut the file.
        transform: of the encoder.
        frames: number of frames per segment.
        known: id of the content that is stored for this file; if the file still has it, nothing is decoded.
        stored: ids of segments that need not be read again.
        rest: state of a file that an earlier job opened.
        longest: maximum duration of the video in seconds; 0 is no limit.
    """

    path: bytes
    size: int
    mtime: int
    segmenting: Segmenting
    transform: FrameTransform
    frames: int
    known: str = ""
    stored: frozenset[str] = frozenset()
    rest: "Rest | None" = None
    longest: float = 0.0


@dataclass(frozen=True)
class Rest:
    """State of an opened file: its content, the video, the spans of all its segments, and the next one to read."""

    content: str
    video: Video
    spans: tuple[Span, ...]
    next: int


@dataclass(frozen=True)
class ReadSegment:
    """A segment: pixels (F, 3, H, W), uint8, timestamps (F,) in seconds, and a JPEG of its middle frame."""

    start: float
    end: float
    pixels: np.ndarray
    times: np.ndarray
    thumbnail: bytes


@dataclass(frozen=True)
class ReadFile:
    """The result of a job.

    Attributes:
        content: see `content_of`; the same for copies.
        duration: of the file, in seconds.
        spans: start and end of all its segments, in seconds; empty if the content is the known one.
        segments: the segments read by this job.
        rest: the job that continues; None after the last one.
    """

    content: str
    duration: float
    spans: tuple[Span, ...]
    segments: tuple[ReadSegment, ...]
    rest: ReadJob | None


def read_files(
    jobs: Iterable[ReadJob], workers: int, seconds: float, refused: set[bytes], stop: Callable[[], bool] = lambda: False
) -> Generator[tuple[ReadJob, ReadFile | str]]:
    """Yields jobs, and the jobs that continue them, with their results or the reasons of failure, as they finish.

    Args:
        workers: number of processes; a process that a file crashes or blocks is replaced.
        seconds: time limit for a job; large files get more.
        refused: paths not to read any further; the consumer of the results may add some.
        stop: called regularly; the generator ends once it returns true.
    """
    new, continued = iter(jobs), deque[ReadJob]()

    def take() -> ReadJob | None:
        while continued:
            job = continued.popleft()
            if job.path not in refused:
                return job
        return next(new, None)

    def time_limit(job: ReadJob) -> float:
        pace = _BYTES_PER_SECOND_FOR_SCENES if job.segmenting.by == "scenes" else _BYTES_PER_SECOND
        return seconds + (0 if job.rest else job.size / pace)

    for job, result in run_in_workers(read_file, take, workers, time_limit, stop):
        if isinstance(result, WorkerFailure):
            yield job, failure_reason(result, time_limit(job)).capitalize()
            continue
        if isinstance(result, ReadFile) and result.rest:
            continued.append(result.rest)
        yield job, result


def read_file(job: ReadJob) -> ReadFile | str:
    """Reads the next segments of a file, or returns the reason of failure. Any exception of a decoder is a reason."""
    torch.set_num_threads(1)
    try:
        result = _read(job)
        status = os.stat(job.path)
        if (status.st_size, status.st_mtime_ns) != (job.size, job.mtime):
            return "It changed while it was read: add it again when it is complete."
    except DitsError as error:
        name = f"{name_of(job.path)} "  # the path is shown beside the reason
        reason = str(error)
        return f"It {reason.removeprefix(name)}" if reason.startswith(name) else reason
    except FileNotFoundError:
        return "It was removed while it was read."
    except PermissionError:
        return "No permission to read it: change its permissions."
    except Exception as error:
        return f"It cannot be decoded ({type(error).__name__}: {str(error)[:200]})."
    return result


def _read(job: ReadJob) -> ReadFile | str:
    file = job.rest
    if file is None:
        content = content_of(job.path)
        if content == job.known:
            return ReadFile(content, 0.0, (), (), None)
        video = inspect_video(Path(os.fsdecode(job.path)))
        if 0 < job.longest < video.info.duration:
            return f"It lasts {video.info.duration:.0f} s, longer than the maximum of {job.longest:g} s: cut it."
        file = Rest(content, video, tuple(spans(video, job.segmenting)), 0)
    left = range(file.next, len(file.spans))
    wanted = [n for n in left if segment_id(file.content, *file.spans[n]) not in job.stored][:_SEGMENTS_PER_JOB]
    after = wanted[-1] + 1 if wanted else len(file.spans)
    more = any(segment_id(file.content, *span) not in job.stored for span in file.spans[after:])
    return ReadFile(
        content=file.content,
        duration=file.video.info.duration,
        spans=file.spans,
        segments=tuple(_segments(job, file.video, [file.spans[n] for n in wanted])),
        rest=replace(job, rest=replace(file, next=after)) if more else None,
    )


def _segments(job: ReadJob, video: Video, wanted: list[Span]) -> Generator[ReadSegment]:
    size = min(job.transform.size)
    for (start, end), sampled in zip(wanted, sample_spans(video, wanted, job.frames, size=size), strict=True):
        middle = sampled.frames[len(sampled.frames) // 2]
        pixels = job.transform.crop(sampled.frames).numpy()
        yield ReadSegment(start, end, pixels, sampled.times.astype(np.float32), thumbnail(middle))


def content_of(path: bytes) -> str:
    """The id of a file's content: the first 20 hexadecimal digits of its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:20]

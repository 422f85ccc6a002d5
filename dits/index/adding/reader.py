"""What worker processes do with a file: hash it, cut it into segments, and read each one's frames as pixels.

A file is read in jobs of a few segments, so that neither a message between processes nor what is lost with a process
that dies grows with the length of the video.
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
from dits.corpora.decode_check import why_lost
from dits.encoders.transforms import FrameTransform
from dits.index.schema import segment_id
from dits.video.probe import Video, examine, name_of
from dits.video.sampling import sample_spans, thumbnail
from dits.video.segments import Segmenting, Span, spans
from dits.video.workers import Lost, run_in_worker

_SEGMENTS_A_JOB = 8
_BYTES_A_SECOND = 10_000_000  # of a file, which is hashed and listed: a slow disk's pace
_BYTES_A_SECOND_TO_CUT = 500_000  # where every frame is decoded to find scenes
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True)
class ReadJob:
    """A file to read, or the rest of one.

    Attributes:
        path: the file.
        size, mtime: as they were found, in bytes and nanoseconds.
        segmenting: how it is cut.
        transform: of the encoder that will see the frames.
        frames: of every segment.
        known: names the content that is stored of this file; nothing is decoded where it still has it.
        stored: ids of segments that need not be read again.
        rest: of a file that was opened by an earlier job: the video, all its spans, and the first that is to be read.
        longest: seconds that the video may last; 0 is any.
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
    """What is known of a file that was opened."""

    content: str
    video: Video
    spans: tuple[Span, ...]
    next: int


@dataclass(frozen=True)
class ReadSegment:
    """A segment's frames as pixels (F, 3, H, W), uint8, their times (F,) in seconds, and a JPEG of one of them."""

    start: float
    end: float
    pixels: np.ndarray
    times: np.ndarray
    thumbnail: bytes


@dataclass(frozen=True)
class ReadFile:
    """What a job read.

    Attributes:
        content: the start of the SHA-256 of the file; the same for copies.
        duration: of the file, in seconds.
        spans: of all its segments, in seconds; none where the content is what was known.
        segments: that this job read.
        rest: the job that reads on; None after the last one.
    """

    content: str
    duration: float
    spans: tuple[Span, ...]
    segments: tuple[ReadSegment, ...]
    rest: ReadJob | None


def read_files(
    jobs: Iterable[ReadJob],
    workers: int,
    seconds: float,
    refused: set[bytes],
    ended: Callable[[], bool] = lambda: False,
) -> Generator[tuple[ReadJob, ReadFile | str]]:
    """Every job with what it read, or why nothing could be read, as they come; and the jobs that read on.

    Args:
        workers: processes; one that a file crashes or hangs is replaced.
        seconds: that a job may take, and more where the file is large.
        refused: paths that are not read on; whoever consumes the results may add some.
        ended: asked now and then; nothing more comes once it says so.
    """
    new, going_on = iter(jobs), deque[ReadJob]()

    def take() -> ReadJob | None:
        while going_on:
            job = going_on.popleft()
            if job.path not in refused:
                return job
        return next(new, None)

    def allowed(job: ReadJob) -> float:
        pace = _BYTES_A_SECOND_TO_CUT if job.segmenting.by == "scenes" else _BYTES_A_SECOND
        return seconds + (0 if job.rest else job.size / pace)

    for job, result in run_in_worker(read_file, take, workers, allowed, ended):
        if isinstance(result, Lost):
            yield job, why_lost(result, allowed(job)).capitalize()
            continue
        if isinstance(result, ReadFile) and result.rest:
            going_on.append(result.rest)
        yield job, result


def read_file(job: ReadJob) -> ReadFile | str:
    """Reads the next segments of a file; or why they cannot be read. Whatever a decoder raises is a reason."""
    torch.set_num_threads(1)
    try:
        result = _read(job)
        found = os.stat(job.path)
        if (found.st_size, found.st_mtime_ns) != (job.size, job.mtime):
            return "It changed while it was read: add it again when it is complete."
    except DitsError as error:
        name = f"{name_of(job.path)} "  # which stands beside the reason anyway
        reason = str(error)
        return f"It {reason.removeprefix(name)}" if reason.startswith(name) else reason
    except FileNotFoundError:
        return "It was removed while it was read."
    except PermissionError:
        return "It may not be read: change its permissions."
    except Exception as error:
        return f"It cannot be decoded ({type(error).__name__}: {str(error)[:200]})."
    return result


def _read(job: ReadJob) -> ReadFile | str:
    opened = job.rest
    if opened is None:
        content = content_of(job.path)
        if content == job.known:
            return ReadFile(content, 0.0, (), (), None)
        video = examine(Path(os.fsdecode(job.path)))
        if 0 < job.longest < video.info.duration:
            return f"It lasts {video.info.duration:.0f} s, longer than the {job.longest:g} s that are allowed: cut it."
        opened = Rest(content, video, tuple(spans(video, job.segmenting)), 0)
    ahead = range(opened.next, len(opened.spans))
    wanted = [n for n in ahead if segment_id(opened.content, *opened.spans[n]) not in job.stored][:_SEGMENTS_A_JOB]
    after = wanted[-1] + 1 if wanted else len(opened.spans)
    more = any(segment_id(opened.content, *span) not in job.stored for span in opened.spans[after:])
    return ReadFile(
        content=opened.content,
        duration=opened.video.info.duration,
        spans=opened.spans,
        segments=tuple(_segments(job, opened.video, [opened.spans[n] for n in wanted])),
        rest=replace(job, rest=replace(opened, next=after)) if more else None,
    )


def _segments(job: ReadJob, video: Video, wanted: list[Span]) -> Generator[ReadSegment]:
    size = min(job.transform.size)
    for (start, end), sampled in zip(wanted, sample_spans(video, wanted, job.frames, size=size), strict=True):
        middle = sampled.frames[len(sampled.frames) // 2]
        pixels = job.transform.crop(sampled.frames).numpy()
        yield ReadSegment(start, end, pixels, sampled.times.astype(np.float32), thumbnail(middle))


def content_of(path: bytes) -> str:
    """The first 20 hexadecimal digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:20]

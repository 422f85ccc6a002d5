"""What adding has to do: which of the files that were found are new or changed, and which are gone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dits.encoders.transforms import FrameTransform
from dits.index.adding.reader import ReadJob
from dits.index.scan import FoundFile, Scan, below
from dits.index.schema import DUPLICATE, FAILED, MISSING, OK, FileRow
from dits.index.store import FileRecord, VideoIndex
from dits.video.segments import Segmenting


@dataclass(frozen=True)
class Plan:
    """What there is to do with the files of a scan.

    Attributes:
        jobs: files to read.
        unchanged: how many need not be read.
        back: paths that were missing and are there again, as they were.
        gone: paths that are no longer there.
        problems: rows of what could not be looked at.
        solved: folders that could not be listed before.
    """

    jobs: tuple[ReadJob, ...]
    unchanged: int
    back: tuple[bytes, ...]
    gone: tuple[bytes, ...]
    problems: tuple[FileRow, ...]
    solved: tuple[bytes, ...]


def holders(known: Mapping[bytes, FileRecord]) -> dict[str, bytes]:
    """The file that each content's segments are stored under."""
    return {record.video: path for path, record in known.items() if record.status in (OK, MISSING) and record.complete}


def make_plan(
    index: VideoIndex,
    known: Mapping[bytes, FileRecord],
    scan: Scan,
    segmenting: Segmenting,
    transform: FrameTransform,
    retry: bool,
) -> Plan:
    """Compares what was found with what the index knows, by size and time of modification.

    Args:
        index: which is asked for the segments of files whose reading was interrupted.
        known: its files.
        scan: what was found.
        segmenting: how files are to be cut; those cut in another way are read again.
        transform: of the encoder that will see the frames.
        retry: read again what failed before.
    """
    held_by = holders(known)
    jobs, back = [], []
    for path, found in scan.files.items():
        record = known.get(path)
        if record is None or not _settled(record, found, segmenting, held_by, retry):
            job = ReadJob(path, found.size, found.mtime, segmenting, transform, index.frames)
            jobs.append(_with_what_is_stored(job, index, record))
        elif record.status == MISSING:
            back.append(path)
    gone = [
        path
        for path, record in known.items()
        if record.status != MISSING and path not in scan.files and path not in scan.problems
        and below(path, scan.folders) and not os.path.lexists(path)
    ]  # fmt: skip
    return Plan(
        jobs=tuple(jobs),
        unchanged=len(scan.files) - len(jobs),
        back=tuple(back),
        gone=tuple(gone),
        problems=tuple(
            FileRow(path, 0, 0, "", str(segmenting), FAILED, reason) for path, reason in scan.problems.items()
        ),
        solved=tuple(path for path in scan.folders if path in known),
    )


def _settled(
    record: FileRecord, found: FoundFile, segmenting: Segmenting, held_by: Mapping[str, bytes], retry: bool
) -> bool:
    """Whether nothing is to be done for a file that the index knows."""
    if (record.size, record.mtime) != (found.size, found.mtime) or not record.complete:
        return False
    if record.status == FAILED:
        return not retry
    if record.status == DUPLICATE:
        holder = held_by.get(record.video)
        return holder is not None and os.path.lexists(holder)
    return record.segmenting == str(segmenting)


def _with_what_is_stored(job: ReadJob, index: VideoIndex, record: FileRecord | None) -> ReadJob:
    """The job, told what need not be decoded again."""
    if record is None or record.segmenting != str(job.segmenting) or record.status not in (OK, MISSING):
        return job
    if record.complete:
        return replace(job, known=record.video)
    return replace(job, stored=frozenset(index.segments_of(record.video)))

"""The plan of a run: which files are new or changed, and which are missing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dits.encoders.transforms import FrameTransform
from dits.index.adding.config import AddConfig
from dits.index.adding.reader import ReadJob
from dits.index.scan import FoundFile, Scan, below
from dits.index.schema import DUPLICATE, FAILED, MISSING, OK, FileRow
from dits.index.store import FileRecord, VideoIndex
from dits.video.segments import Segmenting


@dataclass(frozen=True)
class Plan:
    """What to do with the files of a scan.

    Attributes:
        jobs: files to read.
        unchanged: number of files that need not be read.
        restored: paths that were missing and are back, unchanged.
        missing: paths that no longer exist.
        problems: rows for files and folders that could not be read.
        listable: folders of the scan that the index has as problems.
    """

    jobs: tuple[ReadJob, ...]
    unchanged: int
    restored: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    problems: tuple[FileRow, ...]
    listable: tuple[bytes, ...]


def owners_of_content(known: Mapping[bytes, FileRecord]) -> dict[str, bytes]:
    """For each content, the file that its segments are stored under."""
    return {record.video: path for path, record in known.items() if record.status in (OK, MISSING) and record.complete}


def make_plan(
    index: VideoIndex, known: Mapping[bytes, FileRecord], scan: Scan, config: AddConfig, transform: FrameTransform
) -> Plan:
    """Compares the files of a scan with those of the index, by size and modification time.

    Args:
        index: the index; it has the stored segments of files whose reading was interrupted.
        known: the files of the index.
        scan: the files found.
        config: how to add files; files that were cut differently are read again.
        transform: of the encoder.
    """
    owners, segmenting = owners_of_content(known), Segmenting.parse(config.segment)
    jobs, restored = [], []
    for path, file in scan.files.items():
        record = known.get(path)
        if record is None or not _is_current(record, file, segmenting, owners, config.retry):
            job = ReadJob(path, file.size, file.mtime, segmenting, transform, index.frames, longest=config.longest)
            jobs.append(_with_stored(job, index, record))
        elif record.status == MISSING:
            restored.append(path)
    missing = [
        path
        for path, record in known.items()
        if record.status != MISSING and path not in scan.files and path not in scan.problems
        and below(path, scan.folders) and not os.path.lexists(path)
    ]  # fmt: skip
    problems = [FileRow(path, 0, 0, "", str(segmenting), FAILED, reason) for path, reason in scan.problems.items()]
    return Plan(
        jobs=tuple(jobs),
        unchanged=len(scan.files) - len(jobs),
        restored=tuple(restored),
        missing=tuple(missing),
        problems=tuple(problems),
        listable=tuple(path for path in scan.folders if path in known),
    )


def _is_current(
    record: FileRecord, file: FoundFile, segmenting: Segmenting, owners: Mapping[str, bytes], retry: bool
) -> bool:
    """Whether the record of a file is still right, so that the file need not be read."""
    if (record.size, record.mtime) != (file.size, file.mtime) or not record.complete:
        return False
    if record.status == FAILED:
        return not retry
    if record.status == DUPLICATE:
        owner = owners.get(record.video)
        return owner is not None and os.path.lexists(owner)
    return record.segmenting == str(segmenting)


def _with_stored(job: ReadJob, index: VideoIndex, record: FileRecord | None) -> ReadJob:
    """Adds to a job the content or the segments that are stored already."""
    if record is None or record.segmenting != str(job.segmenting) or record.status not in (OK, MISSING):
        return job
    if record.complete:
        return replace(job, known=record.video)
    return replace(job, stored=frozenset(index.segments_of(record.video)))

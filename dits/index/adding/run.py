"""Adds videos to an index: what is new or changed is read, embedded (see `dits.index.adding.local`) and stored in small
steps.

Whatever ends a run, the index holds what was stored before, and the next run goes on from there.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from dits.common.errors import VideoError
from dits.encoders.openclip import OpenClipEncoder
from dits.index.adding.config import AddConfig, AddProgress, AddReport, Progress
from dits.index.adding.local import Embeddings, LocalWork, Work
from dits.index.adding.plan import Plan, holders, make_plan
from dits.index.adding.reader import ReadFile, ReadJob
from dits.index.scan import Scan, absolute, below, find_videos
from dits.index.schema import DUPLICATE, FAILED, MISSING, OK, FileRow, SegmentRow, segment_id
from dits.index.store import VideoIndex
from dits.video.probe import name_of
from dits.video.segments import Segmenting

_ROWS_A_STEP = 64
_SECONDS_A_STEP = 20.0
_SHARE_THAT_TELLS = 0.01  # of the bytes: what fewer took says nothing about the rest


def add_videos(
    index: VideoIndex,
    encoder: OpenClipEncoder,
    paths: Sequence[str | bytes],
    config: AddConfig | None = None,
    progress: Progress | None = None,
    work: Work | None = None,
) -> AddReport:
    """Adds the videos among files and in folders, and remembers those for `update_index`.

    What the index knows and has not changed is passed over; what changed is replaced; files that are gone from the
    folders are marked; copies are noted as such; what cannot be decoded is stored with its reason.

    Args:
        progress: told after every step, and several times a second while there is none. What it raises ends the run.
        work: who reads and embeds; by default this machine does.

    Raises:
        InputError: a path does not exist.
        DitsError: the index cannot be written, or worker processes do not start.
    """
    config = config or AddConfig()
    scan = find_videos(paths)
    # It reads what the index holds: nothing is written to a damaged one.
    run = _Run(index, encoder, config, progress, work)
    for path in paths:
        index.remember_source(absolute(path), config.segment)
    return run.run(scan)


def update_index(
    index: VideoIndex,
    encoder: OpenClipEncoder,
    config: AddConfig | None = None,
    progress: Progress | None = None,
    work: Work | None = None,
) -> AddReport:
    """Looks again at everything that was added, each cut as it was then. A folder that is gone counts as emptied.

    What was added both by itself and with a folder around it is looked at by itself.

    Args:
        work: see `add_videos`.

    Raises:
        DitsError: as `add_videos`.
    """
    reports = []
    sources = index.sources()
    for path, segment in sources:
        own = replace(config or AddConfig(), segment=segment)
        scan = find_videos([path]) if os.path.lexists(path) else Scan(folders={path})
        inner = [other for other, _ in sources if other != path and below(other, [path])]
        reports.append(_Run(index, encoder, own, progress, work).run(scan.without(inner)))
    counts = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("added", "unchanged", "duplicates", "failed", "missing", "segments")
    }
    return AddReport(**counts, notices=tuple(dict.fromkeys(notice for r in reports for notice in r.notices)))


def remove_videos(index: VideoIndex, paths: Sequence[str | bytes]) -> int:
    """Forgets files, and everything below folders, whether they are there or not; how many files.

    Raises:
        IndexStoreError: the index cannot be written.
    """
    folders = [absolute(path) for path in paths]
    index.forget_sources(path for path, _ in index.sources() if below(path, folders))
    removed = [path for path in index.files() if below(path, folders)]
    index.forget(removed)
    index.compact()
    return len(removed)


class _Run:
    """One run over what a scan found."""

    def __init__(
        self,
        index: VideoIndex,
        encoder: OpenClipEncoder,
        config: AddConfig,
        progress: Progress | None,
        work: Work | None,
    ) -> None:
        self.index, self.encoder, self.config = index, encoder, config
        self.segmenting = Segmenting.parse(config.segment)
        self.work = work or LocalWork(encoder, config)
        self.known = index.files()
        self.holders = holders(self.known)
        self.refused: set[bytes] = set()  # copies, which are not read on
        self.rows: list[SegmentRow | FileRow] = []
        self.closing: list[tuple[bytes, frozenset[str]]] = []  # files whose other rows go once `rows` are stored
        self.stored_at = time.monotonic()
        self.progress = progress

    def run(self, scan: Scan) -> AddReport:
        transform, retry = self.encoder.transform, self.config.retry
        plan = make_plan(self.index, self.known, scan, self.segmenting, transform, retry)
        jobs = [replace(job, longest=self.config.longest) for job in plan.jobs]
        self.counts = _Counts([job.size for job in jobs], self.progress)
        self._note(plan)
        try:
            with closing(self.work.do(jobs, self.refused, self.counts.tell)) as done:
                for job, result, embeddings in done:
                    self._take(job, result, embeddings)
                    if len(self.rows) >= _ROWS_A_STEP or time.monotonic() - self.stored_at > _SECONDS_A_STEP:
                        self._store()
        finally:
            self._store()
        missing = self.index.mark(plan.gone, OK, MISSING)  # what was moved is known by its new path now
        self.index.compact()
        return self.counts.report(plan.unchanged, missing, self.work.notices)

    def _note(self, plan: Plan) -> None:
        self.index.forget([*plan.solved, *(p for p in plan.gone if self.known[p].status in (FAILED, DUPLICATE))])
        self.index.mark(plan.back, MISSING, OK)
        for row in plan.problems:
            record = self.known.get(row.path)
            if record is None or (record.status, record.reason) != (FAILED, row.reason):
                self.rows.append(row)
                self.closing.append((row.path, frozenset([row.id])))
        self.counts.failed = len(plan.problems)

    def _take(self, job: ReadJob, result: ReadFile | str, embeddings: Embeddings) -> None:
        if job.path in self.refused:
            return
        if isinstance(result, str):
            self._fail(job, result)
            return
        holder = self.holders.setdefault(result.content, job.path)
        if holder != job.path:
            self.refused.add(job.path)
            self._take_copy(job, result.content, holder)
        elif not result.spans:  # touched, but not changed
            self._move(job, result.content)
        else:
            try:
                self._add(job, result, embeddings)
            except VideoError as error:  # the encoder makes nothing of it
                self.refused.add(job.path)
                self._fail(job, str(error))

    def _fail(self, job: ReadJob, reason: str) -> None:
        self.counts.failed += 1
        if job.rest is not None:  # what was read of it goes, and a copy may take its place
            self.holders.pop(job.rest.content, None)
        self._finish(job, [FileRow(job.path, job.size, job.mtime, "", str(job.segmenting), FAILED, reason)])

    def _take_copy(self, job: ReadJob, content: str, holder: bytes) -> None:
        """A file whose content is stored as another's: a copy, or that one, which was moved."""
        if not os.path.lexists(holder):
            self.holders[content] = job.path
            self.counts.added += 1
            self._move(job, content)
            return
        self.counts.duplicates += 1
        reason = f"It has the same content as {name_of(holder)}."
        self._finish(job, [FileRow(job.path, job.size, job.mtime, content, str(job.segmenting), DUPLICATE, reason)])

    def _move(self, job: ReadJob, content: str) -> None:
        self._store()
        self.index.move(content, job.path, job.size, job.mtime)
        self._finish(job, [], frozenset(self.index.segments_of(content)))

    def _add(self, job: ReadJob, result: ReadFile, embeddings: Embeddings) -> None:
        rows = [
            SegmentRow(
                path=job.path,
                size=job.size,
                mtime=job.mtime,
                video=result.content,
                segmenting=str(job.segmenting),
                segments=len(result.spans),
                duration=result.duration,
                start=segment.start,
                end=segment.end,
                times=segment.times,
                thumbnail=segment.thumbnail,
                mean=mean,
                frames=frames,
            )
            for segment, (frames, mean) in zip(result.segments, embeddings, strict=True)
        ]
        self.rows += rows
        self.counts.embedded(len(rows), job.size / len(result.spans))
        if result.rest is None:
            self.counts.added += 1
            self._finish(job, [], frozenset(segment_id(result.content, *span) for span in result.spans))

    def _finish(self, job: ReadJob, rows: list[FileRow], keep: frozenset[str] = frozenset()) -> None:
        """Nothing more comes of a file: what the index held of it before goes, but for what is named."""
        self.rows += rows
        if job.path in self.known or job.rest is not None:
            self.closing.append((job.path, keep.union(row.id for row in rows)))
        self.counts.finished(job.size)

    def _store(self) -> None:
        self.index.write(self.rows)
        for path, keep in self.closing:
            self.index.forget([path], keep)
        self.rows, self.closing, self.stored_at = [], [], time.monotonic()


class _Counts:
    """What has been done, and how long the rest will take at the same pace."""

    def __init__(self, sizes: Sequence[int], progress: Progress | None) -> None:
        self.files, self.bytes = len(sizes), max(1, sum(sizes))
        self.added = self.duplicates = self.failed = self.segments = self.done = 0
        self._finished = self._partly = 0.0  # bytes
        self._began = time.monotonic()
        self._progress = progress

    def embedded(self, segments: int, bytes_each: float) -> None:
        self.segments += segments
        self._partly += segments * bytes_each
        self.tell()

    def finished(self, size: int) -> None:
        self.done += 1
        self._finished += size
        self._partly = 0.0 if self.done == self.files else self._partly
        self.tell()

    def tell(self) -> None:
        if self._progress is None:
            return
        elapsed = time.monotonic() - self._began
        share = min(1.0, max(self._finished, self._partly) / self.bytes)
        left = elapsed * (1 - share) / share if share > _SHARE_THAT_TELLS else None
        rate = self.segments / elapsed if elapsed > 0 else 0.0
        self._progress(AddProgress(self.done, self.files, self.segments, self.failed, rate, left))

    def report(self, unchanged: int, missing: int, notices: Sequence[str]) -> AddReport:
        done = (self.added, unchanged, self.duplicates, self.failed, missing, self.segments)
        return AddReport(*done, tuple(notices))

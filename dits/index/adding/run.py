"""Runs that add videos to an index: new and changed files are read, embedded and stored in small steps.

However a run ends, the index keeps what was stored, and the next run continues from there.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from dits.common.errors import VideoError
from dits.encoders.openclip import OpenClipEncoder
from dits.index.adding.config import AddConfig, AddProgress, AddReport, Progress
from dits.index.adding.local import Backend, Embeddings, LocalBackend
from dits.index.adding.plan import Plan, make_plan, owners_of_content
from dits.index.adding.reader import ReadFile, ReadJob
from dits.index.scan import Scan, absolute, below, find_videos
from dits.index.schema import DUPLICATE, FAILED, MISSING, OK, FileRow, SegmentRow, segment_id
from dits.index.store import VideoIndex
from dits.video.probe import name_of

_ROWS_PER_STEP = 64
_SECONDS_PER_STEP = 20.0
_MIN_SHARE_FOR_ESTIMATE = 0.01  # of the bytes, to estimate the time left


def add_videos(
    index: VideoIndex,
    encoder: OpenClipEncoder,
    paths: Sequence[str | bytes],
    config: AddConfig | None = None,
    progress: Progress | None = None,
    backend: Backend | None = None,
) -> AddReport:
    """Adds files, and the videos in folders, and remembers the paths for `update_index`.

    Unchanged files are skipped and changed ones replaced. Missing files are marked as missing, copies as duplicates. A
    file that cannot be decoded is stored with the reason.

    Args:
        progress: called after every step, and several times per second while waiting. Its exceptions end the run.
        backend: reads and embeds; by default on this machine.

    Raises:
        InputError: a path does not exist.
        DitsError: the index cannot be written, or worker processes do not start.
    """
    config = config or AddConfig()
    scan = find_videos(paths)
    # This reads the index first, so that nothing is written to a damaged one.
    run = _Run(index, encoder, config, progress, backend)
    for path in paths:
        index.remember_source(absolute(path), config.segment)
    return run.run(scan)


def update_index(
    index: VideoIndex,
    encoder: OpenClipEncoder,
    config: AddConfig | None = None,
    progress: Progress | None = None,
    backend: Backend | None = None,
) -> AddReport:
    """Adds again all paths that were added before, each cut as before. A missing folder counts as empty.

    A path that was added both by itself and within a folder is treated by itself. See `add_videos` for arguments.

    Raises:
        DitsError: as `add_videos`.
    """
    reports = []
    sources = index.sources()
    for path, segment in sources:
        own_config = replace(config or AddConfig(), segment=segment)
        scan = find_videos([path]) if os.path.lexists(path) else Scan(folders={path})
        inner = [other for other, _ in sources if other != path and below(other, [path])]
        reports.append(_Run(index, encoder, own_config, progress, backend).run(scan.without(inner)))
    counts = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("added", "unchanged", "duplicates", "failed", "missing", "segments")
    }
    return AddReport(**counts, notices=tuple(dict.fromkeys(notice for r in reports for notice in r.notices)))


def remove_videos(index: VideoIndex, paths: Sequence[str | bytes]) -> int:
    """Removes files, and all files below folders, from the index; they may be missing. Returns the number of files.

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
    """One run over the files of a scan."""

    def __init__(
        self, index: VideoIndex, encoder: OpenClipEncoder, config: AddConfig, progress: Progress | None,
        backend: Backend | None,
    ) -> None:  # fmt: skip
        self.index, self.encoder, self.config = index, encoder, config
        self.backend = backend or LocalBackend(encoder, config)
        self.known = index.files()
        self.owners = owners_of_content(self.known)
        self.refused: set[bytes] = set()  # copies and failed files, which are not read any further
        self.rows: list[SegmentRow | FileRow] = []
        self.finished: list[tuple[bytes, frozenset[str]]] = []  # files, and the row ids to keep once `rows` are stored
        self.stored_at = time.monotonic()
        self.progress = progress

    def run(self, scan: Scan) -> AddReport:
        plan = make_plan(self.index, self.known, scan, self.config, self.encoder.transform)
        self.counts = _Counts([job.size for job in plan.jobs], self.progress)
        self._update_known(plan)
        try:
            with closing(self.backend.process(plan.jobs, self.refused, self.counts.report_progress)) as results:
                for job, result, embeddings in results:
                    self._handle(job, result, embeddings)
                    if len(self.rows) >= _ROWS_PER_STEP or time.monotonic() - self.stored_at > _SECONDS_PER_STEP:
                        self._store()
        finally:
            self._store()
        missing = self.index.mark(plan.missing, OK, MISSING)  # moved files have their new paths by now
        self.index.compact()
        return self.counts.report(plan.unchanged, missing, self.backend.notices)

    def _update_known(self, plan: Plan) -> None:
        """Updates the rows of files that need not be read."""
        self.index.forget([*plan.listable, *(p for p in plan.missing if self.known[p].status in (FAILED, DUPLICATE))])
        self.index.mark(plan.restored, MISSING, OK)
        for row in plan.problems:
            record = self.known.get(row.path)
            if record is None or (record.status, record.reason) != (FAILED, row.reason):
                self.rows.append(row)
                self.finished.append((row.path, frozenset([row.id])))
        self.counts.failed = len(plan.problems)

    def _handle(self, job: ReadJob, result: ReadFile | str, embeddings: Embeddings) -> None:
        if job.path in self.refused:
            return
        if isinstance(result, str):
            self._fail(job, result)
            return
        owner = self.owners.setdefault(result.content, job.path)
        if owner != job.path:
            self.refused.add(job.path)
            self._handle_copy(job, result.content, owner)
        elif not result.spans:  # new modification time, same content
            self._move(job, result.content)
        else:
            try:
                self._add(job, result, embeddings)
            except VideoError as error:  # the embedding is not finite
                self.refused.add(job.path)
                self._fail(job, str(error))

    def _fail(self, job: ReadJob, reason: str) -> None:
        self.counts.failed += 1
        if job.rest is not None:  # its stored segments are removed, and a copy may own the content
            self.owners.pop(job.rest.content, None)
        self._finish(job, [FileRow(job.path, job.size, job.mtime, "", str(job.segmenting), FAILED, reason)])

    def _handle_copy(self, job: ReadJob, content: str, owner: bytes) -> None:
        """Handles a file with the content of another one: a copy, or the same file after a move."""
        if not os.path.lexists(owner):
            self.owners[content] = job.path
            self.counts.added += 1
            self._move(job, content)
            return
        self.counts.duplicates += 1
        reason = f"It has the same content as {name_of(owner)}."
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
        self.counts.add_segments(len(rows), job.size / len(result.spans))
        if result.rest is None:
            self.counts.added += 1
            self._finish(job, [], frozenset(segment_id(result.content, *span) for span in result.spans))

    def _finish(self, job: ReadJob, rows: list[FileRow], keep: frozenset[str] = frozenset()) -> None:
        """Finishes a file: the next `_store` removes its old rows, except `rows` and the ids in `keep`."""
        self.rows += rows
        if job.path in self.known or job.rest is not None:
            self.finished.append((job.path, keep.union(row.id for row in rows)))
        self.counts.add_file(job.size)

    def _store(self) -> None:
        self.index.write(self.rows)
        for path, keep in self.finished:
            self.index.forget([path], keep)
        self.rows, self.finished, self.stored_at = [], [], time.monotonic()


class _Counts:
    """Counts of a run, and the estimate of the time left."""

    def __init__(self, sizes: Sequence[int], progress: Progress | None) -> None:
        self.files, self.bytes = len(sizes), max(1, sum(sizes))
        self.added = self.duplicates = self.failed = self.segments = self.done = 0
        self._finished_bytes = self._embedded_bytes = 0.0
        self._start = time.monotonic()
        self._progress = progress

    def add_segments(self, segments: int, bytes_each: float) -> None:
        self.segments += segments
        self._embedded_bytes += segments * bytes_each
        self.report_progress()

    def add_file(self, size: int) -> None:
        self.done += 1
        self._finished_bytes += size
        self._embedded_bytes = 0.0 if self.done == self.files else self._embedded_bytes
        self.report_progress()

    def report_progress(self) -> None:
        if self._progress is None:
            return
        elapsed = time.monotonic() - self._start
        share = min(1.0, max(self._finished_bytes, self._embedded_bytes) / self.bytes)
        left = elapsed * (1 - share) / share if share > _MIN_SHARE_FOR_ESTIMATE else None
        rate = self.segments / elapsed if elapsed > 0 else 0.0
        self._progress(AddProgress(self.done, self.files, self.segments, self.failed, rate, left))

    def report(self, unchanged: int, missing: int, notices: Sequence[str]) -> AddReport:
        return AddReport(self.added, unchanged, self.duplicates, self.failed, missing, self.segments, tuple(notices))

"""Backends that read and embed videos: the interface, and the backend for this machine."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

import numpy as np

from dits.common.processes import default_workers
from dits.encoders.openclip import OpenClipEncoder
from dits.index.adding.config import AddConfig
from dits.index.adding.embedding import SegmentEncoder
from dits.index.adding.prefetch import Prefetcher
from dits.index.adding.reader import ReadFile, ReadJob, read_files

Embeddings = Iterable[tuple[np.ndarray, np.ndarray]]
"""Frame embeddings (F, d), float16, and the mean-pooled embedding (d,), of each segment of a job."""

JobResult = tuple[ReadJob, ReadFile | str, Embeddings]
"""A job, its segments or the reason why it failed, and their embeddings, which may be computed lazily."""


class Backend(Protocol):
    """Reads files and embeds their segments."""

    @property
    def notices(self) -> Sequence[str]:
        """Sentences on anything unusual."""

    def process(self, jobs: Sequence[ReadJob], refused: set[bytes], tick: Callable[[], None]) -> Generator[JobResult]:
        """Yields the jobs, and the jobs for the rest of each file, as they finish; those of one file in order.

        Args:
            jobs: files to read.
            refused: paths not to read any further; the consumer of the results may add some.
            tick: called regularly while no result is ready. Its exceptions are raised here.
        """


class LocalBackend:
    """Worker processes read and prefetch; this process embeds."""

    def __init__(self, encoder: OpenClipEncoder, config: AddConfig) -> None:
        """Raises InputError if the precision is unknown."""
        self._embed = SegmentEncoder(encoder, config.precision)
        self._workers, self._seconds = config.workers or default_workers(), config.seconds

    @property
    def notices(self) -> Sequence[str]:
        """See `Backend`."""
        return self._embed.notices

    def process(self, jobs: Sequence[ReadJob], refused: set[bytes], tick: Callable[[], None]) -> Generator[JobResult]:
        """See `Backend`."""
        workers, seconds = self._workers, self._seconds
        results = Prefetcher(lambda closed: read_files(jobs, workers, seconds, refused, closed), workers, tick)
        try:
            for job, result in results:
                yield job, result, self._embed(result.segments) if isinstance(result, ReadFile) else ()
        finally:
            results.close()

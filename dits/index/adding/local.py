"""Who reads videos and embeds them for a run that adds them: this machine, unless it is told otherwise."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

import numpy as np

from dits.corpora.decode_check import cores
from dits.encoders.openclip import OpenClipEncoder
from dits.index.adding.config import AddConfig
from dits.index.adding.embedding import SegmentEncoder
from dits.index.adding.prefetch import Prefetcher
from dits.index.adding.reader import ReadFile, ReadJob, read_files

Embeddings = Iterable[tuple[np.ndarray, np.ndarray]]
"""Frame embeddings (F, d), float16, and the mean-pooled one (d,) of each segment that a job read."""

Done = tuple[ReadJob, ReadFile | str, Embeddings]
"""A job, what it read or why it could not, and the embeddings of that, computed then or when they are asked for."""


class Work(Protocol):
    """Reads files and embeds their segments."""

    @property
    def notices(self) -> Sequence[str]:
        """Sentences on what was peculiar."""

    def do(self, jobs: Sequence[ReadJob], refused: set[bytes], tick: Callable[[], None]) -> Generator[Done]:
        """Every job, and the jobs that read on, as they are done; those of one file in order.

        Args:
            jobs: files to read.
            refused: paths that need not be read on; whoever consumes the results may add some.
            tick: called now and then while nothing comes. What it raises is raised here.
        """


class LocalWork:
    """Worker processes read, ahead of this one, which embeds."""

    def __init__(self, encoder: OpenClipEncoder, config: AddConfig) -> None:
        """Raises InputError where there is no such precision."""
        self._embed = SegmentEncoder(encoder, config.precision)
        self._workers, self._seconds = config.workers or cores(), config.seconds

    @property
    def notices(self) -> Sequence[str]:
        """See `Work`."""
        return self._embed.notices

    def do(self, jobs: Sequence[ReadJob], refused: set[bytes], tick: Callable[[], None]) -> Generator[Done]:
        """See `Work`."""
        workers, seconds = self._workers, self._seconds
        results = Prefetcher(lambda ended: read_files(jobs, workers, seconds, refused, ended), workers, tick)
        try:
            for job, result in results:
                yield job, result, self._embed(result.segments) if isinstance(result, ReadFile) else ()
        finally:
            results.close()

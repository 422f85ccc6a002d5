"""Runs that change an index, in the background. All indexes share encoder and cores: one run at a time in the app."""

import threading
from collections.abc import Callable

from dits.common.errors import require
from dits.index.adding.config import AddProgress, AddReport, Progress
from ui.runtime.background import BackgroundTask, lower_priority

Work = Callable[[Progress], AddReport]
"""Changes an index; it must let exceptions of the progress callback through, which stop it."""

_POLL = 0.2  # seconds


class IndexRuns(BackgroundTask):
    """The runs of one index.

    Args:
        app_lock: lock that the active run of the app holds; other runs wait for it.
        ended: called in the thread of a run, before the run counts as ended.

    Attributes:
        progress: of the run; None until the first report.
        waiting: whether the run waits for another visitor's run.
        report, error, stopped: outcome of the last run.
    """

    def __init__(self, app_lock: threading.Lock, ended: Callable[[], None]) -> None:
        super().__init__("indexing", "The videos could not be added")
        self.progress: AddProgress | None = None
        self.waiting = False
        self.report: AddReport | None = None
        self._app_lock, self._ended = app_lock, ended
        self._stop = threading.Event()
        self._closed = False

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped, or is stopping."""
        return self._stop.is_set()

    def start(self, work: Work) -> None:
        """Start a run.

        Raises:
            InputError: another run is in progress, or `close` was called.
        """
        with self._lock:
            require(not self._closed, "These videos are being deleted: reload the page to start again.")
            require(not self.running, "Videos are being added already: wait until that is done, or stop it.")
            self.progress = self.report = None
            self.waiting = True
            self._stop.clear()
            self._start(lambda: self._work(work))

    def stop(self) -> None:
        """Stop the run, if any, within about a second; the index keeps what is already stored."""
        self._stop.set()

    def close(self) -> None:
        """Stop the run, wait for its end, and reject further runs."""
        with self._lock:
            self._closed = True
            self.stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        lower_priority()
        try:
            super()._run(work)
        finally:
            self.waiting = False
            self._ended()

    def _work(self, work: Work) -> None:
        try:
            while not self._app_lock.acquire(timeout=_POLL):
                if self._stop.is_set():
                    return
            self.waiting = False
            try:
                self.report = work(self._on_progress)
            finally:
                self._app_lock.release()
        except _StoppedError:
            pass

    def _on_progress(self, progress: AddProgress) -> None:
        self.progress = progress
        if self._stop.is_set():
            raise _StoppedError


class _StoppedError(Exception):
    """Unwinds a run that is stopped."""

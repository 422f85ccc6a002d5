"""Runs that change an index, in the background: one at a time on the whole page, as they share encoder and cores."""

import threading
from collections.abc import Callable

from dits.common.errors import DitsError, require
from dits.common.threads import CORES, compute_on
from dits.index.adding.config import AddProgress, AddReport, Progress
from ui.runtime.background import lower_priority

Work = Callable[[Progress], AddReport]
"""Changes an index, and ends when the progress that it is given raises."""

_POLL = 0.2  # seconds


class IndexRuns:
    """The runs of one index.

    Args:
        turn: held by the run of the page that is at work; others wait for it.
        ended: called in a run's thread before it counts as ended.

    Attributes:
        progress: how far the run is; None before it has found out.
        waiting: whether it waits for another visitor's run.
        report, error, stopped: what came of the last one.
    """

    def __init__(self, turn: threading.Lock, ended: Callable[[], None]) -> None:
        self.progress: AddProgress | None = None
        self.waiting = False
        self.report: AddReport | None = None
        self.error: DitsError | None = None
        self._turn, self._ended = turn, ended
        self._stop = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped, or is about to be."""
        return self._stop.is_set()

    def start(self, work: Work) -> None:
        """Starts a run.

        Raises:
            InputError: one is under way, or there are to be no more.
        """
        with self._lock:
            require(not self._closed, "These videos are being deleted: reload the page to begin anew.")
            require(not self.running, "Videos are being added already: wait until that is done, or stop it.")
            self.progress = self.report = self.error = None
            self.waiting = True
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(work,), name="indexing", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the run, if there is one, within a second or so; what it stored stays."""
        self._stop.set()

    def close(self) -> None:
        """Ends the run, waits for that, and lets no other begin."""
        with self._lock:
            self._closed = True
            self.stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Work) -> None:
        lower_priority()
        compute_on(CORES)
        try:
            self._wait()
            try:
                self.report = work(self._on_progress)
            finally:
                self._turn.release()
        except _StoppedError:
            pass
        except DitsError as error:
            self.error = error
        except Exception as error:  # whatever it is, the page has to say that the run ended
            self.error = DitsError(f"The videos could not be added ({type(error).__name__}: {error}).")
            raise
        finally:
            self.waiting = False
            self._ended()

    def _wait(self) -> None:
        while not self._turn.acquire(timeout=_POLL):
            if self._stop.is_set():
                raise _StoppedError
        self.waiting = False

    def _on_progress(self, progress: AddProgress) -> None:
        self.progress = progress
        if self._stop.is_set():
            raise _StoppedError


class _StoppedError(Exception):
    """Unwinds a run that is stopped."""

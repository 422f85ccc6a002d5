"""Background threads of low priority, which leave most of the machine to searches; and tasks in their own threads."""

import contextvars
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

from dits.common.errors import DitsError
from dits.common.threads import CORES, compute_on
from ui.runtime.error_messages import show_errors

_NICENESS_STEP = 10  # added to the niceness of the threads that run searches
_MAX_NICENESS = 19  # of Linux


class BackgroundThreads:
    """Runs handlers in threads of low priority; threads that these start inherit the priority.

    Args:
        threads: maximum number of handlers that run at once; further ones wait.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="background", initializer=enter_background)

    def __call__(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a handler so that a call runs it in the background and waits; errors are shown as by `show_errors`."""

        @wraps(handler)  # Gradio reads the signature
        def run(*args: Any) -> Any:
            return self._pool.submit(contextvars.copy_context().run, handler, *args).result()

        return show_errors(run)


class BackgroundTask:
    """Base of a task in its own thread on all CORES, at most one run at a time. Only `IndexRuns` lowers its priority.

    Attributes:
        error: why the last run failed; None if it did not.
    """

    def __init__(self, name: str, failure: str) -> None:
        """`name`: of the thread; `failure`: beginning of the message for an unexpected error."""
        self.error: DitsError | None = None
        self._name, self._failure = name, failure
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether a run is in progress."""
        return self._thread is not None and self._thread.is_alive()

    def _start(self, work: Callable[[], None]) -> None:
        """Run `work` in a new thread; the caller holds the lock."""
        self.error = None
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        compute_on(CORES)
        try:
            work()
        except DitsError as error:
            self.error = error
        except Exception as error:  # of any type: the page has to show that the run failed
            self.error = DitsError(f"{self._failure} ({type(error).__name__}: {error}).")
            raise


def enter_background() -> None:
    """Lower the priority of this thread, and compute on half of the cores.

    On all cores a computation is several times slower: its threads wait for each other and for those of searches.
    """
    lower_priority()
    compute_on(max(1, CORES // 2))


def lower_priority() -> None:
    """Lower the priority of this thread below that of its parent; only on Linux, where threads have priorities."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        inherited = os.getpriority(os.PRIO_PROCESS, thread)  # above 0 under nice(1)
        os.setpriority(os.PRIO_PROCESS, thread, min(inherited + _NICENESS_STEP, _MAX_NICENESS))

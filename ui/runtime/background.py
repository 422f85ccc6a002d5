"""What takes long gives way to searches."""

import contextvars
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

from dits.common.threads import CORES, compute_on
from ui.runtime.error_messages import shown_errors

STEPS = 10  # of niceness, below what runs searches
LOWEST = 19  # that Linux knows


class BackgroundThreads:
    """Runs handlers in threads of their own, of a low priority, which the threads that they start inherit.

    Args:
        threads: how many handlers run at once; further ones wait.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="background", initializer=enter_background)

    def __call__(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler, which is waited for, with its expected failures as `shown_errors` has them."""

        @wraps(handler)  # Gradio reads the signature
        def run(*args: Any) -> Any:
            return self._pool.submit(contextvars.copy_context().run, handler, *args).result()

        return shown_errors(run)


def enter_background() -> None:
    """This thread gives way, and leaves half of the cores alone: threads that wait for each other and for what has
    more priority take several times as long as one.
    """
    lower_priority()
    compute_on(max(1, CORES // 2))


def lower_priority() -> None:
    """On Linux, where threads have priorities of their own, this one gets a lower one than the one that started it."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        inherited = os.getpriority(os.PRIO_PROCESS, thread)  # of a run under nice(1), more than 0
        os.setpriority(os.PRIO_PROCESS, thread, min(inherited + STEPS, LOWEST))

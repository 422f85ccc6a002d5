"""What takes long gives way to searches."""

import contextvars
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

from ui.shown_errors import shown_errors


class Aside:
    """Runs handlers in threads of their own, of a low priority, which the threads that they start inherit.

    Args:
        threads: how many handlers run at once; further ones wait.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="aside", initializer=give_way)

    def __call__(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler, which is waited for, with its expected failures as `shown_errors` has them."""

        @wraps(handler)  # Gradio reads the signature
        def run(*args: Any) -> Any:
            return self._pool.submit(contextvars.copy_context().run, handler, *args).result()

        return shown_errors(run)


def give_way() -> None:
    """On Linux, where threads have a priority of their own, this one gets a low one."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)

"""How many are served at once, and how many may wait for that: the settings of Gradio's queue."""

import os

SEARCHES = 32
"""Searches at once, which are computed together (`dits.search`). Whoever comes later sees their place in the queue."""

WAITING = 200
"""Events of all pages that may wait; whoever comes later is told that the app is busy."""

THREADS = 64
"""For events: searches, one analysis, and pages that follow what goes on in the background."""


SWITCH = 0.0005
"""Seconds after which a thread that interprets Python lets another go on; by default ten times as many. A search gives
up the interpreter some hundred times, for every product of matrices, and waits as long each time for a figure that is
made beside it."""


def without_statistics() -> None:
    """Keeps Gradio from summing up all its past events after every one, for a dashboard that the app does not have.

    To be called before a page is built.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

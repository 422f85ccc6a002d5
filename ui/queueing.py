"""How many are served at once, and how many may wait for that: the settings of Gradio's queue."""

import os

SEARCHES = 32
"""Searches at once, which are computed together (`dits.search`). Whoever comes later sees their place in the queue."""

WAITING = 200
"""Events of all pages that may wait; whoever comes later is told that the app is busy."""

THREADS = 64
"""For events: searches, one analysis, and pages that follow what goes on in the background."""


def without_statistics() -> None:
    """Keeps Gradio from summing up all its past events after every one, for a dashboard that the app does not have.

    To be called before a page is built.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

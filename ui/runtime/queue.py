"""Limits and tuning of Gradio's request queue."""

import asyncio
import inspect
import os
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.utils import LRUCache
from starlette.exceptions import HTTPException

MAX_SEARCHES = 64
"""Maximum number of searches that run at once, computed as one batch. Later searches wait in the queue."""

MAX_WAITING = 200
"""Maximum number of waiting events of all pages; further events are rejected with a message that the queue is full."""

MAX_THREADS = 96
"""Threads for events: searches, one analysis, and pages that follow a background task."""

MAX_SESSIONS = 1000
"""Maximum number of sessions in memory; the least recently used are dropped first. Each opened page and each API call
is a session, of a quarter of a megabyte plus the content of the page."""

SWITCH_INTERVAL = 0.0005
"""Python's thread switch interval in seconds, a tenth of the default. A search releases the interpreter about a hundred
times, at every matrix product. Each time it may wait this long for another thread, such as one that draws a figure."""

POLL_INTERVAL = 0.005
"""Seconds between two checks of the queue for waiting events; Gradio's default is 0.001."""


class SessionMessages(LRUCache[str, Any]):
    """Pending messages by session, a replacement for Gradio's own cache.

    Gradio drops the oldest session, even if it is in use. Its queue stops permanently on a message for a dropped or
    unnamed session. Here the least recently used session is dropped, messages for dropped sessions are discarded, and
    a session without a name is rejected.
    """

    def __getitem__(self, session: str) -> Any:
        if session in self:
            self.move_to_end(session)
        return super().__getitem__(session)

    def __setitem__(self, session: str, messages: Any) -> None:
        if not session:
            raise HTTPException(400, "A session needs a name: reload the page.")
        super().__setitem__(session, messages)

    def __missing__(self, session: str) -> Any:
        return asyncio.Queue()


def tune(app: gr.Blocks) -> None:
    """Configure the queue of an assembled page, and cache the signatures of its components and handlers.

    Otherwise Gradio computes the signature of every component at each new session and of the handler at each event.
    """
    app.queue(max_size=MAX_WAITING, api_open=False)  # calls without the queue would bypass its limits
    app._queue.pending_messages_per_session = SessionMessages(MAX_SESSIONS)
    app._queue.sleep_when_free = POLL_INTERVAL
    for function in (*(type(block).__init__ for block in app.blocks.values()), *(fn.fn for fn in app.fns.values())):
        with suppress(AttributeError, TypeError):  # a method, an event without a handler
            function.__signature__ = inspect.signature(function)


def disable_analytics() -> None:
    """Stop Gradio from recomputing statistics of all past events after each event; call it before building a page."""
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

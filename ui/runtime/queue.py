"""How many are served at once, how many may wait for that, and what Gradio need not do for each of them."""

import asyncio
import inspect
import os
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.utils import LRUCache
from starlette.exceptions import HTTPException

SEARCHES = 64
"""How many searches run at once, computed as one batch. Later ones wait in the queue and see their place."""

WAITING = 200
"""Events of all pages that may wait; whoever comes later is told that the app is busy."""

THREADS = 96
"""For events: searches, one analysis, and pages that follow what goes on in the background."""

SESSIONS = 1000
"""Sessions that are remembered, those used last: every page that is opened is one, and every call of the API. Each
takes a quarter of a megabyte, and a page what it shows."""

SWITCH = 0.0005
"""Seconds after which a thread that interprets Python lets another go on; by default ten times as many. A search gives
up the interpreter some hundred times, for every product of matrices, and waits as long each time for a figure that is
made beside it."""


POLL = 0.005
"""Seconds between looks for events that wait; by default a fifth of that, a thousand looks a second."""


class Messages(LRUCache[str, Any]):
    """What waits to be told to sessions, in the place of Gradio's own.

    Gradio forgets the session that began first, though it may be in use, and its queue ends for good when it has
    something to tell to one that is forgotten, or that has no name. Here the one that was not used for longest is
    forgotten, what it should be told is dropped, and one without a name is refused.
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
    """Gives the queue of a page that is built its settings, and lets Gradio describe elements and handlers at once.

    It asks Python for the signature of every element's class when a session begins, and of a handler at every event.
    """
    app.queue(max_size=WAITING, api_open=False)  # whoever asks without the queue would pass by its limits
    app._queue.pending_messages_per_session = Messages(SESSIONS)
    app._queue.sleep_when_free = POLL
    for described in (*(type(block).__init__ for block in app.blocks.values()), *(fn.fn for fn in app.fns.values())):
        with suppress(AttributeError, TypeError):  # a method, an event without a handler
            described.__signature__ = inspect.signature(described)


def without_statistics() -> None:
    """Keeps Gradio from summing up all its past events after every one, for a dashboard that the app does not have.

    To be called before a page is built.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

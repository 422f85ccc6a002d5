"""How the app ends: those who have asked get their answers first, then the process exits with code 0.

SIGTERM and Ctrl-C ask for that; asked once more, the process ends at once.
"""

import atexit
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:  # so that signals are heard before what takes seconds to import
    import gradio as gr

SHUTTING_DOWN = "The app is being ended: try again when it has been started again."

_PATIENCE = 8.0  # seconds that answers under way may take; whoever asks for the end may wait ten before it insists
_DELIVERY = 1.0  # seconds in which finished answers are fetched
_POLL = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_LASTING = re.compile(r"/gradio_api/(?:heartbeat/|mcp)|/clip/")
"""Addresses whose answers may last as long as a page is open, or as a browser takes to play a clip."""

_HARMLESS = re.compile(r"/gradio_api/(?:cancel|reset)/?")


def listen_for_shutdown() -> None:
    """From now on the first signal to end raises KeyboardInterrupt here, in the main thread; the next one ends all."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for Ctrl-C of what it runs behind itself
            signal.signal(number, _first)


def leave(code: int) -> NoReturn:
    """Ends the process, without waiting for threads that compute, as Python does before it crashes in some of them."""
    for process in multiprocessing.active_children():
        process.kill()
    atexit._run_exitfuncs()  # temporary folders go
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class RequestsInFlight:
    """What is being answered.

    Attributes:
        closing: nothing new is taken on.
        under_way: answers that are not complete, but for those that may last for ever.
    """

    def __init__(self) -> None:
        self.closing = False
        self.in_flight = 0


class ShutdownMiddleware:
    """ASGI middleware: counts what is being answered, and takes nothing new on once the app is to end."""

    def __init__(self, app: ASGIApp, traffic: RequestsInFlight) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asks, path = scope["method"] == "POST", scope["path"]
        if asks and self._traffic.closing and not _HARMLESS.fullmatch(path):
            await JSONResponse({"detail": SHUTTING_DOWN}, 503)(scope, receive, send)
        elif _LASTING.match(path) and not asks:
            await self._app(scope, receive, send)
        else:
            self._traffic.in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._traffic.in_flight -= 1


def serve_until_shutdown(
    app: "gr.Blocks", traffic: RequestsInFlight, stop: Callable[[], None], busy: Callable[[], bool]
) -> None:
    """Waits for a signal to end (see `listen_for_shutdown`), and then until everybody has been answered.

    Args:
        stop: asks what runs in the background to stop.
        busy: whether some of it has not stopped yet.
    """
    try:
        while app.is_running:
            time.sleep(_POLL)
    except KeyboardInterrupt:
        traffic.closing = True
    stop()
    _wait_while(lambda: traffic.in_flight or _works(app) or busy(), _PATIENCE)
    _wait_while(lambda: traffic.in_flight or _holds_answers(app), _DELIVERY)
    app.server.config.timeout_graceful_shutdown = 1
    app.close(verbose=False)


def _wait_while(true: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while true() and time.monotonic() < deadline:
        time.sleep(_POLL)


def _works(app: "gr.Blocks") -> bool:
    """Whether events are being handled, or wait for that."""
    return len(app._queue) > 0 or any(job is not None for job in app._queue.active_jobs)


def _holds_answers(app: "gr.Blocks") -> bool:
    """Whether events have been handled whose results nobody has fetched."""
    return any(list(app._queue.pending_event_ids_session.values()))


def _first(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, _next)
    raise KeyboardInterrupt


def _next(number: int, frame: FrameType | None) -> NoReturn:
    for process in multiprocessing.active_children():
        process.kill()
    os._exit(128 + number)

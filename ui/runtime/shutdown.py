"""Graceful shutdown: running requests are answered first, then the process exits with code 0.

SIGTERM or Ctrl-C starts the shutdown; a second signal ends the process immediately.
"""

import atexit
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:  # so that signals are handled before this slow import
    import gradio as gr

SHUTTING_DOWN = "The app is shutting down: try again after it has been restarted."

_ANSWER_TIMEOUT = 8.0  # seconds for running requests; process managers often wait ten before they kill
_DELIVERY_TIMEOUT = 1.0  # seconds for clients to fetch finished results
_POLL = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_LONG_LIVED = re.compile(r"/gradio_api/(?:heartbeat/|mcp)|/clip/")
"""Paths whose responses may last as long as a page is open or a clip is played."""

_ALWAYS_ALLOWED = re.compile(r"/gradio_api/(?:cancel|reset)/?")


def listen_for_shutdown() -> None:
    """Let the first shutdown signal raise KeyboardInterrupt in the main thread, and the second one end the process."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # shells ignore Ctrl-C for background jobs
            signal.signal(number, _first_signal)


def exit_process(code: int) -> NoReturn:
    """End the process without waiting for running threads; Python would wait for them and crash in some."""
    for process in multiprocessing.active_children():
        process.kill()
    atexit._run_exitfuncs()  # removes temporary folders
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class RequestsInFlight:
    """Count of the running requests.

    Attributes:
        closing: whether new requests are rejected.
        in_flight: number of incomplete responses, except long-lived ones.
    """

    def __init__(self) -> None:
        self.closing = False
        self.in_flight = 0


class ShutdownMiddleware:
    """ASGI middleware that counts running requests, and rejects new ones during shutdown."""

    def __init__(self, app: ASGIApp, requests: RequestsInFlight) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_post, path = scope["method"] == "POST", scope["path"]
        if is_post and self._requests.closing and not _ALWAYS_ALLOWED.fullmatch(path):
            await JSONResponse({"detail": SHUTTING_DOWN}, 503)(scope, receive, send)
        elif _LONG_LIVED.match(path) and not is_post:
            await self._app(scope, receive, send)
        else:
            self._requests.in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._requests.in_flight -= 1


def serve_until_shutdown(app: "gr.Blocks", requests: RequestsInFlight, tasks: Sequence[Any]) -> None:
    """Wait for a shutdown signal (see `listen_for_shutdown`), then until all running requests are answered.

    Args:
        tasks: background tasks, each with a method `stop` and a property `running`.
    """
    try:
        while app.is_running:
            time.sleep(_POLL)
    except KeyboardInterrupt:
        requests.closing = True
    for task in tasks:
        task.stop()
    _wait_while(lambda: requests.in_flight or _has_events(app) or any(task.running for task in tasks), _ANSWER_TIMEOUT)
    _wait_while(lambda: requests.in_flight or _has_unfetched_results(app), _DELIVERY_TIMEOUT)
    app.server.config.timeout_graceful_shutdown = 1
    app.close(verbose=False)


def _wait_while(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        time.sleep(_POLL)


def _has_events(app: "gr.Blocks") -> bool:
    """Whether events are running or waiting."""
    return len(app._queue) > 0 or any(job is not None for job in app._queue.active_jobs)


def _has_unfetched_results(app: "gr.Blocks") -> bool:
    return any(list(app._queue.pending_event_ids_session.values()))


def _first_signal(number: int, frame: FrameType | None) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, _second_signal)
    raise KeyboardInterrupt


def _second_signal(number: int, frame: FrameType | None) -> NoReturn:
    for process in multiprocessing.active_children():
        process.kill()
    os._exit(128 + number)

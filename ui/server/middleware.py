"""What the app answers at all: its own addresses, for its own page and for programs, in sizes that make sense.

Gradio answers at many more addresses than this page needs: proxies, recordings, editors, monitoring, files by their
paths. `Guard` stands before all of them: what `ADDRESSES` does not list is not there.
"""

import errno
import ipaddress
import logging
import re
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.server.uploads import Uploads
from ui.services.media import NOTHING

_NAME = r"[A-Za-z0-9_-]+"
_FILE = r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*"  # no part of which begins with a dot

ADDRESSES = {
    "GET": (
        "/",
        r"/(?:config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|plotly\.js)",
        rf"/(?:assets|static)/{_FILE}",  # what Gradio's page is made of
        rf"/(?:clip|thumbnail)/{_NAME}/.+",
        r"/gradio_api/(?:info|openapi\.json|app_id|startup-events|queue/data|upload_progress)/?",
        rf"/gradio_api/heartbeat/{_NAME}",
        rf"/gradio_api/call/(?:v2/)?{_NAME}/{_NAME}",
        r"/gradio_api/mcp(?:/|/schema)?",
    ),
    "POST": (
        r"/gradio_api/(?:queue/join|cancel|reset|upload)/?",
        rf"/gradio_api/(?:run|call|call/v2)/{_NAME}/?",
        "/gradio_api/mcp/?",
    ),
    "DELETE": ("/gradio_api/mcp/?",),
}
"""The addresses that are answered, by method; HEAD and OPTIONS are as GET and POST."""

MAX_BYTES = 2_000_000
"""Of whatever is sent, but for uploads."""

UPLOAD = "/gradio_api/upload"

_WHERE = {method: re.compile("|".join(f"(?:{one})" for one in some)) for method, some in ADDRESSES.items()}
_LONGEST = 2_000  # characters of an address with its query

_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio has scripts in its page, and makes some of text
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}
_SPACES = "https://huggingface.co https://*.hf.space"

UNREADABLE = "What was sent is not what is asked for here: reload the page, and try again."

UNANSWERED = "This cannot be answered: reload the page, and try again."

DISK_FULL = "There is no space left on the disk of this machine for what was sent: send less, or free some."

_log = logging.getLogger(__name__)


async def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": UNREADABLE}, 422)


PLAINLY: dict[Any, Any] = {RequestValidationError: _unreadable}
"""FastAPI's handlers of errors that say in one sentence what else would be a list of what was sent."""


class Guard:
    """ASGI middleware: refuses, in one sentence, what is not for this app, and answers what fails inside it.

    Args:
        app: what is guarded.
        uploads: counts what is uploaded.
        names: that the app may be asked for under, besides addresses of numbers and "localhost", which no other site
            can stand behind; None takes any: where the app is hosted, others route requests to it.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads, names: Iterable[str] | None) -> None:
        self._app, self._uploads = app, uploads
        self._names = None if names is None else {"localhost", *(name.lower() for name in names)}
        self._headers = _headers(hosted=self._names is None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # no address of the app takes a WebSocket
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, answered = Request(scope), _Answered(send, self._headers)
        try:
            self._check(request)
            if request.url.path.rstrip("/") == UPLOAD:
                with self._uploads.taken(request, receive) as counted:
                    await self._app(scope, counted, answered)
            else:
                await self._app(scope, _limited(request, receive), answered)
        except HTTPException as refused:
            await answered.end(_refusal(request, refused.status_code, refused.detail))
        except Exception as error:  # Gradio raises whatever Python does at values that it does not expect
            _log.warning("%s %s: %s", request.method, request.url.path[:100], _named(error))
            _log.debug("The error was", exc_info=error)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            status, sentence = (507, DISK_FULL) if full else (400, UNANSWERED)
            await answered.end(_refusal(request, status, sentence))

    def _check(self, request: Request) -> None:
        """Raises HTTPException for what is not answered."""
        if self._names is not None and not all(_is_own(host, self._names) for host in _asked_for(request)):
            raise HTTPException(
                403, "The app is not known by this name: ask for 127.0.0.1, or name it with --name NAME when you start."
            )
        if _comes_from_elsewhere(request):
            raise HTTPException(403, "Other sites cannot ask this app: open its own page.")
        method = {"HEAD": "GET", "OPTIONS": "POST"}.get(request.method, request.method)
        where, path = _WHERE.get(method), request.scope["path"]
        if where is None or not where.fullmatch(path) or len(path) + len(request.url.query) > _LONGEST:
            raise HTTPException(404, NOTHING)


def names_of(host: str | None, further: Iterable[str]) -> list[str]:
    """The names that a run of one's own may be asked for under: those that are given, and, where it is served to other
    machines, this machine's.
    """
    machine = socket.gethostname()
    return [*further, *filter(None, (host, *((machine, f"{machine}.local") if host else ())))]


class _Answered:
    """Sends an answer with headers of our own, and remembers how far it is."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self._send, self._headers = send, headers
        self._begun = self._done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self._done = not message.get("more_body", False)
        await self._send(message)

    async def end(self, response: Response) -> None:
        """Answers with `response`, or, where another answer has begun, ends that."""
        if not self._begun:
            await response({"type": "http"}, _nothing_more, self)
        elif not self._done:
            await self({"type": "http.response.body", "body": b""})


def _headers(hosted: bool) -> dict[str, str]:
    """What every answer says to browsers: guess no types, tell nobody, show it in frames of a Space's site alone."""
    policy = _POLICY | {"frame-ancestors": f"'self' {_SPACES}" if hosted else "'self'"}
    if hosted:
        policy["connect-src"] += " https://huggingface.co"  # Gradio's page asks how its Space is
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return headers if hosted else headers | {"X-Frame-Options": "SAMEORIGIN"}


def _asked_for(request: Request) -> list[str]:
    """What a request calls this run: the page's own address becomes what servers before it say, where they do."""
    passed_on = ",".join(request.headers.getlist("x-forwarded-host"))
    return [request.headers.get("host", ""), *(host.strip() for host in passed_on.split(",") if host.strip())]


def _is_own(host: str, names: set[str]) -> bool:
    """Whether a Host header names this run, and no other site that leads here by its DNS."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name.rstrip(".") in names or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _comes_from_elsewhere(request: Request) -> bool:
    """Whether another site's page asks, other than by leading somebody here; programs name no site."""
    site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
    if site is not None:
        led = mode == "navigate" and request.method in ("GET", "HEAD")
        return site not in ("same-origin", "none") and not led
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


def _limited(request: Request, receive: Receive) -> Receive:
    """`receive`, as long as what comes is not too much."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        _require_small(seen)
        return message

    announced = request.headers.get("content-length", "0")
    _require_small(int(announced) if announced.isdecimal() else 0)
    return limited


def _require_small(size: int) -> None:
    if size > MAX_BYTES:
        raise HTTPException(413, f"That is too much at once: {MAX_BYTES // 1_000_000} MB at most, but for uploads.")


def _refusal(request: Request, status: int, sentence: str) -> Response:
    if request.url.path.startswith(UPLOAD):  # whose page shows the answer as it is
        return PlainTextResponse(sentence, status)
    return JSONResponse({"detail": sentence}, status)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200].replace("\n", " ")


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}

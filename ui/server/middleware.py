"""Request validation: only known addresses, from the app's own page or from programs, with bounded sizes.

Gradio serves many addresses that this page does not need: proxies, recordings, editors, monitoring, files by path.
`Guard` rejects every address that `ADDRESSES` does not list.
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
from ui.services.media import NOT_FOUND

_NAME = r"[A-Za-z0-9_-]+"
_FILE = r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*"  # no part may begin with a dot

ADDRESSES = {
    "GET": (
        "/",
        r"/(?:config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|plotly\.js)",
        rf"/(?:assets|static)/{_FILE}",  # parts of Gradio's page
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
"""Regular expressions of the served paths, by method; HEAD and OPTIONS are treated as GET and POST."""

MAX_BODY_BYTES = 2_000_000
"""Maximum size of a request body, except for uploads."""

UPLOAD = "/gradio_api/upload"

_PATTERNS = {method: re.compile("|".join(f"(?:{path})" for path in paths)) for method, paths in ADDRESSES.items()}
_MAX_ADDRESS = 2_000  # characters of path and query string

_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # needed by Gradio's page
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

INVALID_REQUEST = "The request is invalid: reload the page and try again."

FAILED_REQUEST = "The request failed: reload the page and try again."

DISK_FULL = "There is no space left on the disk of the server: send less, or free some space."

_log = logging.getLogger(__name__)


async def _invalid_request(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": INVALID_REQUEST}, 422)


ERROR_HANDLERS: dict[Any, Any] = {RequestValidationError: _invalid_request}
"""Exception handlers for FastAPI: one sentence instead of a list of the invalid values."""


class Guard:
    """ASGI middleware that rejects invalid requests, and answers exceptions of the app, with one sentence.

    Args:
        app: the application.
        uploads: validates uploads.
        names: allowed host names besides IP addresses and "localhost", which DNS rebinding cannot forge. None allows
            any name: in a hosted app a proxy routes the requests.
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
        else:  # the app has no WebSockets
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, response = Request(scope), _TrackedResponse(send, self._headers)
        try:
            self._validate(request)
            if request.url.path.rstrip("/") == UPLOAD:
                with self._uploads.validate(request, receive) as validated:
                    await self._app(scope, validated, response)
            else:
                await self._app(scope, _limited(request, receive), response)
        except HTTPException as error:
            await response.end(_error_response(request, error.status_code, error.detail))
        except Exception as error:  # Gradio raises any type of exception for unexpected values
            summary = f"{type(error).__name__}: {error}"[:200].replace("\n", " ")
            _log.warning("%s %s: %s", request.method, request.url.path[:100], summary)
            _log.debug("Traceback", exc_info=error)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            status, message = (507, DISK_FULL) if full else (400, FAILED_REQUEST)
            await response.end(_error_response(request, status, message))

    def _validate(self, request: Request) -> None:
        """Raise HTTPException for a request with a wrong host name, from another site, or to an unknown address."""
        if self._names is not None and not all(_is_own(host, self._names) for host in _requested_hosts(request)):
            raise HTTPException(
                403, "This host name is not allowed: use 127.0.0.1, or start the app with --name NAME to allow it."
            )
        if _is_cross_site(request):
            raise HTTPException(403, "Requests from other sites are rejected: open the app's own page.")
        method = {"HEAD": "GET", "OPTIONS": "POST"}.get(request.method, request.method)
        pattern, path = _PATTERNS.get(method), request.scope["path"]
        if pattern is None or not pattern.fullmatch(path) or len(path) + len(request.url.query) > _MAX_ADDRESS:
            raise HTTPException(404, NOT_FOUND)


def host_names(host: str | None, further: Iterable[str]) -> list[str]:
    """Return the allowed host names of a local run: `further`, and those of `host` and this machine if it is set."""
    machine = socket.gethostname()
    return [*further, *filter(None, (host, *((machine, f"{machine}.local") if host else ())))]


class _TrackedResponse:
    """Sends a response with additional headers, and tracks whether it has begun and ended."""

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
        """Send `response`; if another response has begun, end that one instead."""
        if not self._begun:
            await response({"type": "http"}, _disconnected, self)
        elif not self._done:
            await self({"type": "http.response.body", "body": b""})


def _headers(hosted: bool) -> dict[str, str]:
    """Security headers of every response: no guessed types, no referrer, frames only on a Space's site."""
    policy = _POLICY | {"frame-ancestors": f"'self' {_SPACES}" if hosted else "'self'"}
    if hosted:
        policy["connect-src"] += " https://huggingface.co"  # Gradio's page requests the state of its Space
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return headers if hosted else headers | {"X-Frame-Options": "SAMEORIGIN"}


def _requested_hosts(request: Request) -> list[str]:
    """The Host header and the hosts that proxies forward, which Gradio uses as the page's own address."""
    forwarded = ",".join(request.headers.getlist("x-forwarded-host"))
    return [request.headers.get("host", ""), *(host.strip() for host in forwarded.split(",") if host.strip())]


def _is_own(host: str, names: set[str]) -> bool:
    """Whether a host is an allowed name or an IP address, and not another site's name (DNS rebinding)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name.rstrip(".") in names or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_cross_site(request: Request) -> bool:
    """Whether a page of another site sent the request, except by a link; programs do not send a site."""
    site, mode = request.headers.get("sec-fetch-site"), request.headers.get("sec-fetch-mode")
    if site is not None:
        is_link = mode == "navigate" and request.method in ("GET", "HEAD")
        return site not in ("same-origin", "none") and not is_link
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


def _limited(request: Request, receive: Receive) -> Receive:
    """Wrap `receive` so that a body of more than MAX_BODY_BYTES raises HTTPException."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        _require_small(received)
        return message

    length = request.headers.get("content-length", "0")
    _require_small(int(length) if length.isdecimal() else 0)
    return limited


def _require_small(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise HTTPException(
            413, f"The request is too large: at most {MAX_BODY_BYTES // 1_000_000} MB, except for uploads."
        )


def _error_response(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith(UPLOAD):  # the page shows this response as it is
        return PlainTextResponse(message, status)
    return JSONResponse({"detail": message}, status)


async def _disconnected() -> Message:
    return {"type": "http.disconnect"}

"""Validation of uploads: only files, a limited number at a time, and bounded disk space in a hosted app."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from ui.services.visitors import Limits

_MAX_FILES = 1000  # per upload on a local run
_HEAD = 10_000  # maximum bytes of a file's headers, such as its name
_WINDOW = 600.0  # seconds in which one client address may upload as much as one visitor may have


class Uploads:
    """Validates uploads, and limits the space of those that are not added yet.

    Args:
        limits: limits of a hosted app; None on a local run, whose user may fill the disk.
        folder: returns the temporary folder of uploads.
    """

    def __init__(self, limits: Limits | None, folder: Callable[[], Path]) -> None:
        self._limits, self._folder = limits, folder
        self._lock = threading.Lock()
        self._active: dict[object, int] = {}  # bytes of the active uploads
        self._recent: list[tuple[float, str, int]] = []  # time, client address, bytes

    @contextmanager
    def validate(self, request: Request, receive: Receive) -> Iterator[Receive]:
        """Reserve space for an upload; yield a `receive` that raises HTTPException for an invalid body.

        Raises:
            HTTPException: there is not enough space, or one address uploads too much.
        """
        max_files = self._limits.files if self._limits else _MAX_FILES
        form, upload = _Form(request.headers.get("content-type", ""), max_files), object()
        if self._limits:
            self._reserve(upload, request, self._limits)

        async def validated() -> Message:
            message = await receive()
            form.feed(message.get("body", b""))
            return message

        try:
            yield validated
        finally:
            self._active.pop(upload, None)

    def _reserve(self, upload: object, request: Request, limits: Limits) -> None:
        length, client, now = request.headers.get("content-length", ""), _client_address(request), time.monotonic()
        if not length.isdecimal():
            raise HTTPException(411, "An upload must state its length in the header Content-Length.")
        size, limit = int(length), limits.files * (limits.megabytes * 1_000_000 + _HEAD)
        with self._lock:
            self._recent = [upload for upload in self._recent if now - upload[0] < _WINDOW]
            if size + sum(past for _, address, past in self._recent if address == client) > limit:
                raise HTTPException(
                    413,
                    f"Uploads are limited to {limit // 10**6} MB within {_WINDOW / 60:.0f} minutes: try again later.",
                )
            count, waiting = _count_and_bytes(self._folder())
            free = limits.waiting * 1_000_000 - waiting - sum(self._active.values())
            if size > free or count >= limits.files * limits.visitors:
                raise HTTPException(503, "Too many uploads wait to be added: try again in a few minutes.")
            self._recent.append((now, client, size))
            self._active[upload] = size


class _Form:
    """Validates a multipart form while it is received: only files, which Gradio writes to disk.

    Gradio would keep other fields in memory, whatever their size.
    """

    def __init__(self, content_type: str, max_files: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise HTTPException(400, "An upload must be a form with files (multipart/form-data).")
        self._max_files, self._files = max_files, 0
        self._field, self._value = b"", b""
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_to_field,
                "on_header_value": self._add_to_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
            },
        )

    def feed(self, content: bytes) -> None:
        """Parse the next bytes of the form; raises HTTPException if they are invalid."""
        try:
            self._parser.write(content)
        except FormParserError as error:
            raise HTTPException(400, "The upload is not a form with files, or is damaged.") from error

    def _begin(self) -> None:
        self._is_file = False
        self._field = self._value = b""

    def _add_to_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._field = self._value = b""

    def _end_headers(self) -> None:
        self._files += 1
        if not self._is_file:
            raise HTTPException(400, "An upload may contain only files.")
        if self._files > self._max_files:
            raise HTTPException(413, f"At most {self._max_files} files can be uploaded at a time.")


def _client_address(request: Request) -> str:
    """The address of the client, as reported by the nearest proxy if there is one."""
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return forwarded or (request.client.host if request.client else "")


def _count_and_bytes(folder: Path) -> tuple[int, int]:
    """The number of files below a folder, and their total size in bytes."""
    sizes = []
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # added to an index or deleted in the meantime
                sizes.append(os.lstat(os.path.join(path, name)).st_size)
    return len(sizes), sum(sizes)

"""What may be uploaded: files alone, so many at a time, and where strangers upload, no more than there is room for."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from ui.services.visitors import Limits

_MAX_FILES = 1000  # at a time, on a machine of the visitor's own
_HEAD = 10_000  # bytes that a file may take beside its content: its name and the like
_WHILE = 600.0  # seconds in which an address may upload as much as a visitor may have


class Uploads:
    """What is uploaded, and how much of it waits to be added.

    Args:
        limits: what a visitor may upload; None where the machine is the visitor's own, who may fill it.
        folder: gives the folder that uploads wait in.
    """

    def __init__(self, limits: Limits | None, folder: Callable[[], Path]) -> None:
        self._limits, self._folder = limits, folder
        self._lock = threading.Lock()
        self._coming: dict[object, int] = {}  # bytes of what is under way
        self._came: list[tuple[float, str, int]] = []  # when, from where, how many bytes

    @contextmanager
    def taken(self, request: Request, receive: Receive) -> Iterator[Receive]:
        """`receive`, which raises HTTPException where what comes may not be uploaded.

        Raises:
            HTTPException: there is no room for it, or too much comes from one address.
        """
        form, upload = _Form(request.headers.get("content-type", ""), self._most_files), object()
        if self._limits:
            self._reserve(upload, request, self._limits)

        async def checked() -> Message:
            message = await receive()
            form.check(message.get("body", b""))
            return message

        try:
            yield checked
        finally:
            self._coming.pop(upload, None)

    @property
    def _most_files(self) -> int:
        return self._limits.files if self._limits else _MAX_FILES

    def _reserve(self, upload: object, request: Request, limits: Limits) -> None:
        announced, address, now = request.headers.get("content-length", ""), _address(request), time.monotonic()
        if not announced.isdecimal():
            raise HTTPException(411, "An upload must say how long it is.")
        size, most = int(announced), limits.files * (limits.megabytes * 1_000_000 + _HEAD)
        with self._lock:
            self._came = [one for one in self._came if now - one[0] < _WHILE]
            if size + sum(came for _, where, came in self._came if where == address) > most:
                raise HTTPException(
                    413, f"That is more than {most // 1_000_000} MB within {_WHILE / 60:.0f} minutes: try again then."
                )
            count, waiting = _held(self._folder())
            room = limits.waiting * 1_000_000 - waiting - sum(self._coming.values())
            if size > room or count >= limits.files * limits.visitors:
                raise HTTPException(503, "Too many uploads wait to be added: try again in a few minutes.")
            self._came.append((now, address, size))
            self._coming[upload] = size


class _Form:
    """Looks at what a form of several parts holds while it passes: files, whose content Gradio writes to disk, and no
    other fields, which it would keep in memory whatever their size.
    """

    def __init__(self, content_type: str, most: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise HTTPException(400, "An upload is a form of files (multipart/form-data).")
        self._most, self._files = most, 0
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

    def check(self, content: bytes) -> None:
        """Raises HTTPException where the next bytes of the form are none that may be uploaded."""
        try:
            self._parser.write(content)
        except FormParserError as error:
            raise HTTPException(400, "The upload is no form of files, or is damaged.") from error

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
            raise HTTPException(400, "An upload holds files alone.")
        if self._files > self._most:
            raise HTTPException(413, f"At most {self._most} files can be uploaded at a time.")


def _address(request: Request) -> str:
    """Where a request comes from: as the last server before this one says, where there is one."""
    passed_on = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return passed_on or (request.client.host if request.client else "")


def _held(folder: Path) -> tuple[int, int]:
    """How many files lie below a folder, and how many bytes they are."""
    sizes = []
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.lstat(os.path.join(at, name)).st_size)
            except OSError:  # it was added, or its time was up
                continue
    return len(sizes), sum(sizes)

"""Simulated users of the page, many in one process: the requests of a browser, without the browser.

It uses plain sockets, because the client runs on the same cores as the measured app.
"""

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

_MAX_LINE_LENGTH = 2**16
_REUSE = 3.0  # seconds for which an idle connection may be reused; the server closes it after five


class RefusedError(Exception):
    """The app answered with an error, given as text."""


@dataclass(frozen=True)
class Event:
    """An event of the page: its number, and its inputs as pairs of element id (None: no id) and initial value."""

    number: int
    inputs: tuple[tuple[str | None, Any], ...]

    def data(self, values: dict[str, Any]) -> list[Any]:
        """The data that a browser sends: the given values, and the initial values of the other inputs."""
        unknown = set(values) - {name for name, _ in self.inputs}
        assert not unknown, f"The event has no inputs {unknown}."
        return [values.get(name, value) if name else value for name, value in self.inputs]


class Page:
    """The events in the app's configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._components = {component["id"]: component["props"] for component in config["components"]}

    def event(self, element: str | None, kind: str, output: str) -> Event:
        """The event of an element (None: without id) and a kind that changes the element `output`."""
        for dependency in self._config["dependencies"]:
            targets = [(self._name(number), name) for number, name in dependency["targets"]]
            if (element, kind) in targets and output in map(self._name, dependency["outputs"]):
                inputs = tuple((self._name(number), self._value(number)) for number in dependency["inputs"])
                return Event(dependency["id"], inputs)
        raise LookupError(f"The page has no event {kind} of {element} that changes {output}.")

    def named(self, name: str) -> Event:
        """An event without element and inputs, by its name."""
        [number] = [found["id"] for found in self._config["dependencies"] if found["api_name"] == name]
        return Event(number, ())

    def _name(self, number: int | None) -> str | None:
        return self._components.get(number, {}).get("elem_id") if number is not None else None

    def _value(self, number: int) -> Any:
        return self._components[number].get("value")


class Visitor:
    """One user with the page open: a session that reuses its connections like a browser."""

    def __init__(self, url: str) -> None:
        self.session = secrets.token_hex(8)
        self._address = urlsplit(url)
        self._idle: list[_Connection] = []
        self._heartbeat: asyncio.Task[None] | None = None

    async def open(self) -> Page:
        """Load the page's configuration, and open the heartbeat connection of an open page."""
        page = Page(json.loads(await self.get("/config")))
        self._heartbeat = asyncio.create_task(self._hold(f"/gradio_api/heartbeat/{self.session}"))
        return page

    async def close(self) -> None:
        """Close the page."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def ask(self, event: Event, values: dict[str, Any]) -> "Answer":
        """Send an event through the queue, and return the answer.

        Raises:
            RefusedError: the app answered with an error, or not at all.
        """
        body = {"data": event.data(values), "fn_index": event.number, "session_hash": self.session}
        mine = json.loads(await self._posted("/gradio_api/queue/join", body))["event_id"]
        rank, completed = None, None
        async for message in self._messages(f"/gradio_api/queue/data?session_hash={self.session}"):
            if message.get("event_id") == mine and message["msg"] == "estimation":
                rank = max(rank or 0, message["rank"])
            if message.get("event_id") == mine and message["msg"] == "process_completed":
                completed = message
        if completed is None:
            raise RefusedError("The stream of messages ended without an answer.")
        if not completed["success"]:
            raise RefusedError(str(completed["output"].get("error")))
        return Answer(completed["output"]["data"], rank)

    async def call(self, name: str, *data: Any) -> Any:
        """Call an endpoint of the API, and return its answer; raises as `ask` does."""
        called = json.loads(await self._posted(f"/gradio_api/call/{name}", {"data": data}))["event_id"]
        kind, said = b"", b""
        async for line in self._lines(f"/gradio_api/call/{name}/{called}"):
            if line.startswith(b"event: "):
                kind = line[7:]
            elif line.startswith(b"data: "):
                said = line[6:]
        if kind != b"complete":
            raise RefusedError(said.decode() or "The stream of messages ended without an answer.")
        return json.loads(said)[0]

    async def get(self, path: str) -> bytes:
        """Return the content at a path; raises RefusedError if there is none."""
        return b"".join([part async for part in self._request("GET", path)])

    async def _posted(self, path: str, body: dict[str, Any]) -> bytes:
        return b"".join([part async for part in self._request("POST", path, json.dumps(body).encode())])

    async def _messages(self, path: str) -> AsyncIterator[dict[str, Any]]:
        async for line in self._lines(path):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    async def _lines(self, path: str) -> AsyncIterator[bytes]:
        rest = b""
        async for part in self._request("GET", path):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line

    async def _hold(self, path: str) -> None:
        async for _ in self._request("GET", path):
            pass

    async def _request(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[bytes]:
        connection = await self._connection()
        try:
            await connection.send(method, path, body)
            async for part in connection.received():
                yield part
        except BaseException:
            connection.close()
            raise
        connection.left = time.monotonic()
        self._idle.append(connection)

    async def _connection(self) -> "_Connection":
        """An open connection, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.left < _REUSE:
                return connection
            connection.close()
        return await _Connection.to(self._address)


@dataclass(frozen=True)
class Answer:
    """The outputs of an event, and its highest rank in the queue, from 0; None if it never waited."""

    data: list[Any]
    rank: int | None


class _Connection:
    """HTTP/1.1 over one persistent socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host
        self.left = 0.0

    @classmethod
    async def to(cls, address: Any) -> "_Connection":
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=_MAX_LINE_LENGTH)
        return cls(reader, writer, address.netloc)

    async def send(self, method: str, path: str, body: bytes) -> None:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def received(self) -> AsyncIterator[bytes]:
        """Yield the parts of the response as they are received; raises RefusedError for an error response."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        status = int(head[0].split()[1])
        fields = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        parts = self._chunks() if fields.get("transfer-encoding") == "chunked" else self._whole(fields)
        if status >= 400:
            raise RefusedError(f"{status}: {b''.join([part async for part in parts])[:300].decode()}")
        async for part in parts:
            yield part

    def close(self) -> None:
        self._writer.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)

    async def _whole(self, fields: dict[str, str]) -> AsyncIterator[bytes]:
        yield await self._reader.readexactly(int(fields.get("content-length", "0")))


def sentences(seed: int = 0) -> Iterator[str]:
    """27,720 distinct sentences, shuffled with the seed."""
    made = [" ".join(parts) for parts in itertools.product(_WHO, _HOW, _DOES, _WHERE, _WHEN)]
    Random(seed).shuffle(made)
    return iter(made)


_WHO = (
    "a woman", "two children", "an old man", "a black dog", "a white horse", "a robot", "a small girl in a red coat",
    "a cat", "an astronaut", "a chef", "a group of people",
)  # fmt: skip
_HOW = ("slowly", "happily", "quietly", "suddenly", "again", "alone", "with care")
_DOES = (
    "walks", "turns towards the camera", "dances", "looks up at the sky", "opens a door", "rides a skateboard",
    "talks to somebody", "jumps over a puddle", "holds a cup of coffee", "waves",
)  # fmt: skip
_WHERE = ("in the snow", "on a busy street", "at the beach", "in a kitchen", "in a forest", "on the moon")
_WHEN = ("at night", "in the rain", "at sunset", "on a sunny day", "in slow motion", "in black and white")

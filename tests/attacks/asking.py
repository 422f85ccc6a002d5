"""Requests of an attacker: targets are not normalised, and any header is allowed."""

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

_SENTENCE = re.compile(r"\S[^\n]* [^\n]{3,300}\Z")
_INTERNALS = re.compile(r"Traceback|File \"|site-packages|/home/|/tmp/|/root/|Error\(|<class ")


@dataclass(frozen=True)
class Answer:
    """A response: status, headers by lower-case name, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """The message of an error response; fails if it is not one sentence, or reveals internals of the app."""
        text = self.body.decode()
        return sentence(json.loads(text)["detail"] if self.headers.get("content-type") == "application/json" else text)


def sentence(message: Any) -> str:
    """Return a message; fails if it is not one sentence, or reveals internals of the app."""
    assert isinstance(message, str), message
    assert _SENTENCE.match(message), message
    assert not _INTERNALS.search(message), message
    return message


def send(app: str, target: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """Send a request to the app; `_` in the names of headers means `-`."""
    address = urlsplit(app)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    sent = {"Host": address.netloc} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"Content-Type": "application/json"} | sent
        if body is not None:
            sent = {"Content-Length": str(len(body))} | sent
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body:
            connection.send(body)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def call_api(app: str, endpoint: str, *values: Any) -> tuple[bool, Any]:
    """Call the API; return whether it succeeded, and its answer or error message."""
    address = f"/gradio_api/call/{endpoint}"
    sent = send(app, address, "POST", {"data": list(values)})
    assert sent.status == 200, sent
    heard = send(app, f"{address}/{json.loads(sent.body)['event_id']}").body.decode()
    kind, _, data = heard.rpartition("event: ")[2].partition("\ndata: ")
    answer = json.loads(data)
    return kind == "complete", answer[0] if kind == "complete" else answer["error"]


def event(app: str, number: Any, data: Any, session: Any, **more: Any) -> tuple[bool, Any]:
    """Send an event of the page; return whether it succeeded, and its outputs or error message."""
    body = {"data": data, "fn_index": number, "session_hash": session, **more}
    sent = send(app, "/gradio_api/queue/join", "POST", body)
    if sent.status != 200:
        return False, json.loads(sent.body)["detail"]
    address = f"{app}gradio_api/queue/data"
    with httpx.stream("GET", address, params={"session_hash": session}, timeout=60) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ") or "{}")
            if message.get("msg") == "process_completed":
                output = message["output"]
                return message["success"], output["data"] if message["success"] else output["error"]
    raise AssertionError("no answer")


def tool(app: str, method: str, **parameters: Any) -> dict[str, Any]:
    """Send a message of an assistant (MCP); return its result or error."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    answer = send(app, "/gradio_api/mcp/", "POST", message, Accept="application/json, text/event-stream")
    assert answer.status == 200, answer
    [line] = [line for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    message = json.loads(line.removeprefix("data: "))
    return message.get("result") or message["error"]


@contextmanager
def listening() -> Iterator[str]:
    """Yield the address of a server that must not be contacted; fails if a client has connected."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.setblocking(False)
        try:
            listener.accept()
        except BlockingIOError:
            return
        raise AssertionError("A client has connected.")

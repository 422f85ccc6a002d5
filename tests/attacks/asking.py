"""Requests as an attacker sends them: addresses stay as they are written, and any header goes."""

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
_INNARDS = re.compile(r"Traceback|File \"|site-packages|/home/|/tmp/|/root/|Error\(|<class ")


@dataclass(frozen=True)
class Answer:
    """What was answered: status, headers by their names in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """What a refusal says; fails where that is no sentence, or tells of the app's innards."""
        text = self.body.decode()
        said = json.loads(text)["detail"] if self.headers.get("content-type") == "application/json" else text
        return sentence(said)


def sentence(said: Any) -> str:
    """What an attacker is told, which is one sentence for people; fails where it is anything else."""
    assert isinstance(said, str), said
    assert _SENTENCE.match(said), said
    assert not _INNARDS.search(said), said
    return said


def asked(app: str, target: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """What the app at an address answers; `_` in the names of headers stands for `-`."""
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


def told(app: str, endpoint: str, *values: Any) -> tuple[bool, Any]:
    """Whether a call of the API went well, and its answer or what it says is wrong."""
    address = f"/gradio_api/call/{endpoint}"
    sent = asked(app, address, "POST", {"data": list(values)})
    assert sent.status == 200, sent
    heard = asked(app, f"{address}/{json.loads(sent.body)['event_id']}").body.decode()
    kind, _, data = heard.rpartition("event: ")[2].partition("\ndata: ")
    answer = json.loads(data)
    return kind == "complete", answer[0] if kind == "complete" else answer["error"]


def event(app: str, number: Any, data: Any, session: Any, **more: Any) -> tuple[bool, Any]:
    """Whether an event of the page went well, and its outputs or what it says is wrong."""
    body = {"data": data, "fn_index": number, "session_hash": session, **more}
    sent = asked(app, "/gradio_api/queue/join", "POST", body)
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
    """What the app answers an assistant (MCP): the message's result, or its error."""
    said = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    answer = asked(app, "/gradio_api/mcp/", "POST", said, Accept="application/json, text/event-stream")
    assert answer.status == 200, answer
    [line] = [line for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    message = json.loads(line.removeprefix("data: "))
    return message.get("result") or message["error"]


@contextmanager
def listening() -> Iterator[str]:
    """The address of something that must not be asked; fails if anything connected meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.setblocking(False)
        try:
            listener.accept()
        except BlockingIOError:
            return
        raise AssertionError("Somebody connected.")

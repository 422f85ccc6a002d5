"""An app in this process, and videos to add to it, for tests of the user's own videos."""

import json
import os
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import numpy as np

from tests.conftest import free_port
from tests.helpers.videos import write_video
from ui.server.serving import Settings, launch

COLOURS = {"red": (200, 40, 40), "green": (50, 180, 60), "blue": (50, 70, 220)}


def write_clips(folder, seconds=1, fps=10):
    """Three videos, each with one colour and a moving bar."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in COLOURS.items():
        frames = []
        for number in range(seconds * fps):
            frame = np.full((48, 64, 3), colour, np.uint8)
            frame[:, 2 * number % 64 : 2 * number % 64 + 8] = 255
            frames.append(frame)
        write_video(folder / f"{name}.mp4", frames, size=(64, 48), fps=fps, gop=5)
    return folder


@contextmanager
def running(**settings):
    """The address of a running app, its Gradio blocks and its sources, after its engine is loaded."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    port = free_port()
    blocks, sources = launch(Settings(port=port, warm=False, **settings), wait=False)
    try:
        wait_for(lambda: sources._loader.finished)
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}/", blocks=blocks, sources=sources)
    finally:
        blocks.close(verbose=False)
        os.environ.pop("GRADIO_TEMP_DIR", None)
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def wait_for(true, seconds=300):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def request(session="me"):
    """Gradio's request object for a session."""
    return SimpleNamespace(session_hash=session)


def called(app, name, data, session):
    """Send an event of the page like a browser; return (success, output)."""
    [event] = [fn._id for fn in app.blocks.fns.values() if fn.name == name]
    return asked(app.url, event, data, session)


def asked(url, event, data, session):
    """Send an event by its number; see `called`."""
    api = f"{url}gradio_api/queue/"
    sent = httpx.post(f"{api}join", json={"data": data, "fn_index": event, "session_hash": session})
    assert sent.status_code == 200, sent.text
    with httpx.stream("GET", f"{api}data", params={"session_hash": session}, timeout=60) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ") or "{}")
            if message.get("msg") == "process_completed":
                return message["success"], message["output"]
    raise AssertionError("no answer")


def uploaded(app, path):
    """Upload a file like a browser; return its description for events."""
    sent = httpx.post(f"{app.url}gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    assert sent.status_code == 200, sent.text
    return {"path": sent.json()[0], "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def answer(url, **headers):
    """The status, headers and content of a response."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()

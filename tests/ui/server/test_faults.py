"""Faults in the environment of the app: missing files, a full disk, killed processes, signals, a full memory."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

import ui.server.ports
from dits.common.errors import CheckpointError, DitsError, InputError, MemoryFullError
from dits.common.files import cache_root
from dits.common.memory import compute_in_batches
from dits.corpora.demo import demo_folder
from dits.encoders.openclip import load_encoder
from dits.index.store import VideoIndex
from dits.models.checkpoint import bundled_weights
from dits.search.loading import load_engine
from dits.video.sampling import sample_frames
from tests.conftest import REPOSITORY, first_answer, serve
from tests.helpers.own_videos import answer, asked, running, wait_for, write_clips
from ui.runtime.process_folder import ProcessFolder
from ui.server.ports import free_port, start_errors
from ui.services.media import NOT_FOUND

QUERY = "a dog riding a skateboard"
REQUESTS = 5
DISK = 96_000_000  # bytes: the demo's clips are a quarter of that


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """(path, whether it is a small disk): a small disk if it can be mounted, else a folder."""
    mounted = tmp_path_factory.mktemp("disk")
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(mounted)]
    small = shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0
    yield mounted, small
    if small:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.fixture(scope="module")
def app(demo, engine, disk, tmp_path_factory):
    """An app with separate cache, temporary files, weights and index; each test repairs the damage that it causes."""
    at, _ = disk
    cache, weights, temporary = at / "cache", tmp_path_factory.mktemp("weights"), at / "tmp"
    temporary.mkdir()
    shutil.copytree(demo_folder(), cache / "demo" / demo_folder().name)
    for method in ("xpool", "dits"):
        shutil.copy(bundled_weights(method, engine.encoder.id), weights)
    environment = {"DITS_CACHE": str(cache), "TMPDIR": str(temporary)}
    said = (tmp_path_factory.mktemp("said") / "stderr").open("w+")
    arguments = ("--no-warm", "--weights", str(weights), "--index", str(at / "index"))
    process, url = serve(*arguments, environment=environment, stderr=said)
    try:
        first_answer(url)
        yield SimpleNamespace(
            process=process, url=url, cache=cache, weights=weights, temporary=temporary, disk=at, said=said,
            index=at / "index", client=Client(url, verbose=False), session=f"s{process.pid}",
            events={one["api_name"]: one["id"] for one in httpx.get(f"{url}config").json()["dependencies"]},
        )  # fmt: skip
    finally:
        process.kill()
        process.wait()
        said.close()


def event(app, name, *data):
    """Send an event of the page like a browser; return whether it succeeded, and its output."""
    return asked(app.url, app.events[name], list(data), app.session)


def searched(app):
    """The search results of every method."""
    methods = ("dits", "xpool", "mean")
    return {name: app.client.predict(QUERY, name, 5, api_name="/search")["results"] for name in methods}


def add(app, clips):
    """Add a folder of clips on the page; return the page's message at the end of the run."""
    well, output = event(app, "add", str(clips), None, "every 10 seconds", 10)
    assert well, output
    return outcome(app)


def outcome(app):
    well, output = event(app, "follow_1")
    assert well, output
    return str(output["data"][0])


# --- Missing files ---


@pytest.mark.slow
def test_weights_deleted_while_the_app_runs(app, tiny_corpus, tiny_folder, tmp_path):
    before = searched(app)
    away = shutil.move(app.weights, tmp_path / "away")
    try:
        assert searched(app) == before
        assert app.client.predict(QUERY, api_name="/trajectory")["steps"]
        with pytest.raises(CheckpointError) as error:
            load_engine(str(tiny_corpus), f"local-dir:{tiny_folder}", ["dits"], app.weights)
        missing = app.weights / "dits.safetensors"
        assert str(error.value) == (
            f"The weights are missing: there is no file {missing}. Name another folder with --weights."
        )
    finally:
        shutil.move(away, app.weights)


@pytest.mark.slow
def test_a_cache_emptied_while_the_app_runs(app, demo):
    before = searched(app)
    for entry in app.cache.iterdir():
        shutil.rmtree(entry)
    assert searched(app) == before
    clips = {clip.id: clip.path for clip in demo}
    found = [result["id"] for result in before["dits"][:2]]
    wanted = [f"{app.url}{kind}/corpus/{name}" for name in found for kind in ("clip", "thumbnail")] * 2
    with ThreadPoolExecutor(8) as pool:  # like a browser
        answers = list(pool.map(answer, wanted))
    assert [status for status, _, _ in answers] == [200] * 8
    for name in found:
        built = (app.cache / clips[name].relative_to(cache_root())).with_suffix("")
        assert (built.with_suffix(".mp4").read_bytes(), built.with_suffix(".jpg").read_bytes()) == tuple(
            content for address, (_, _, content) in zip(wanted[:4], answers, strict=False) if address.endswith(name)
        )
        again, first = (sample_frames(path).frames.astype(int) for path in (built.with_suffix(".mp4"), clips[name]))
        assert abs(again - first).mean() < 4  # of 255
    assert app.client.predict(QUERY, api_name="/trajectory")["steps"]
    assert app.client.predict("test", "mean", "mean", api_name="/gap")["pairs"] > 0
    assert answer(f"{app.url}clip/corpus/no-such-clip")[::2] == (404, NOT_FOUND.encode())


@pytest.mark.slow
def test_a_missing_clip_that_cannot_be_rebuilt_is_a_sentence(app):
    [clip] = app.client.predict(QUERY, "dits", 1, api_name="/search")["results"]
    shutil.rmtree(app.cache)
    app.cache.write_text("a file")
    try:
        for kind in ("clip", "thumbnail"):
            assert answer(f"{app.url}{kind}/corpus/{clip['id']}")[::2] == (404, NOT_FOUND.encode())
        assert searched(app)["dits"][0] == clip
        assert app.client.predict(QUERY, "mean", api_name="/trajectory")["steps"]
    finally:
        app.cache.unlink()
    assert answer(app.url.rstrip("/") + clip["video"])[0] == 200


# --- A full disk ---


@pytest.mark.slow
def test_a_full_disk(app, disk, tmp_path):
    """The cache, the uploads and the index are on the full disk."""
    if not disk[1]:
        pytest.skip("no disk may be mounted here")
    clips = write_clips(tmp_path / "clips")
    fill = app.disk / "fill"
    fill_disk(fill)
    try:
        assert searched(app)["dits"]
        assert app.client.predict("validation", "mean", "mean", api_name="/gap")["pairs"] > 0
        sent = httpx.post(f"{app.url}gradio_api/upload", files={"files": ("a.mp4", bytes(1_000_000))})
        assert (sent.status_code, sent.text.startswith("There is no space left")) == (507, True)
        assert "No space left for the index" in add(app, clips)
        half = [path for path in app.disk.rglob("*") if path.name.startswith((".writing-", "making-"))]
        assert half == []
        assert [path for path in app.temporary.rglob("*") if path.is_file() and path.stat().st_size > 4096] == []
    finally:
        fill.unlink()
    assert "3 videos added" in add(app, clips)
    event(app, "remove", str(clips))


def fill_disk(path):
    """Write a file until there is no space for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


# --- Killed processes ---


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="lists the app's processes in /proc")
def test_killed_workers(app, tmp_path):
    """All workers are killed during a run: the run ends with a message, and another run succeeds."""
    clips = write_clips(tmp_path / "clips", seconds=2)
    ended = threading.Event()
    killed = []

    def kill():
        while not ended.is_set():
            for pid in set(below(app.process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.01)  # the next worker has to start first

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        said = add(app, clips)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert "does not start" in said or "3 could not be read" in said or "3 failed" in said
    assert searched(app)["dits"]
    assert "3 videos added" in add(app, clips)
    event(app, "remove", str(clips))


def below(pid):
    """The descendants of a process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


# --- Shutdown ---


@pytest.mark.slow
def test_a_signal_lets_running_requests_finish(app, tmp_path):
    """The last test of this app. A page is open, and videos are being added."""
    clips = write_clips(tmp_path / "clips", seconds=30)
    event(app, "add", str(clips), None, "another length", 0.25)
    with open_page(app.url) as beats:
        assert next(beats) == "data: ALIVE"
        with ThreadPoolExecutor(REQUESTS) as pool:  # they are answered one after the other
            names = [submit(app.url, seed) for seed in range(REQUESTS)]
            answers = [pool.submit(fetch, app.url, name) for name in names]
            wait_for(answers[0].done)
            began = time.monotonic()
            app.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(app.url))
            answered = [answer.result() for answer in answers]
        assert app.process.wait(timeout=30) == 0
    assert time.monotonic() - began < 20
    assert [kind for kind, _ in answered] == ["event: complete"] * REQUESTS
    assert all(json.loads(data.removeprefix("data: "))[0]["query"] == QUERY for _, data in answered)
    assert [path for path in app.temporary.rglob("*") if "dits-" in path.name and any(path.iterdir())] == []
    app.said.seek(0)
    assert "Traceback" not in app.said.read()
    index = VideoIndex.open(str(app.index), load_encoder("bundled", "cpu"))
    assert index.counts()["segments"] < 360


def submit(url, seed):
    """Send a slow request; return the name of its answer."""
    data = [QUERY, "dits", 30, 0.5, seed, 8, False]
    return httpx.post(f"{url}gradio_api/call/trajectory", json={"data": data}).json()["event_id"]


def fetch(url, name):
    """Wait for that answer; return its kind and data."""
    said = httpx.get(f"{url}gradio_api/call/trajectory/{name}", timeout=60).text
    kind, data = [line for line in said.splitlines() if line and "heartbeat" not in line and line != "data: null"]
    return kind, data


@contextmanager
def open_page(url):
    """The heartbeat messages of an open page."""
    with httpx.stream("GET", f"{url}gradio_api/heartbeat/somebody", timeout=60) as stream:
        yield stream.iter_lines()


def refuses(url):
    """Whether the app rejects requests, with a message or because it no longer listens."""
    with suppress(httpx.HTTPError):
        sent = httpx.post(f"{url}gradio_api/call/search", json={"data": ["a cat", "dits", 1, False]})
        return sent.status_code == 503 and "is shutting down" in sent.json()["detail"]
    return True


@pytest.mark.slow
def test_control_c_while_weights_are_prepared(tiny_corpus, tiny_folder, tmp_path):
    cache = tmp_path / "cache"
    with (tmp_path / "stderr").open("w+") as said:
        arguments = ("--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}")
        process, url = serve(*arguments, environment={"DITS_CACHE": str(cache), "TMPDIR": str(tmp_path)}, stderr=said)
        try:
            first_answer(url, "mean")
            [prepare] = [
                one["id"] for one in httpx.get(f"{url}config").json()["dependencies"] if one["api_name"] == "prepare"
            ]
            httpx.post(f"{url}gradio_api/queue/join", json={"data": [], "fn_index": prepare, "session_hash": "me"})
            wait_for(lambda: any(cache.glob("training/*/*")))
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
        said.seek(0)
        assert "Traceback" not in said.read()
    assert [path for path in cache.rglob(".writing-*")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_a_second_signal_ends_the_process_immediately():
    script = (
        "import time\nfrom ui.runtime.shutdown import listen_for_shutdown\nlisten_for_shutdown()\n"
        "try:\n    print('up', flush=True)\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('first', flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    for line, number in (("up", signal.SIGINT), ("first", signal.SIGTERM)):
        assert process.stdout.readline().strip() == line
        process.send_signal(number)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    process.stdout.close()


# --- Ports ---


@pytest.fixture
def taken():
    """A port that something listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_that_is_taken_is_a_sentence(taken):
    with pytest.raises(InputError, match=f"The port {taken} is taken: stop the program that uses it"):
        free_port(None, taken)
    with pytest.raises(InputError, match=f"The port {taken} is taken"):
        free_port("0.0.0.0", taken)


def test_without_a_port_the_next_free_one_is_chosen(taken, monkeypatch):
    monkeypatch.setattr(ui.server.ports, "INITIAL_PORT_VALUE", taken)
    monkeypatch.setattr(ui.server.ports, "TRY_NUM_PORTS", 50)
    assert taken < free_port(None, None) < taken + 50
    monkeypatch.setattr(ui.server.ports, "TRY_NUM_PORTS", 1)
    with pytest.raises(InputError, match=f"All ports from {taken} to {taken} are taken"):
        free_port(None, None)


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("203.0.113.9", 8000, "has no address '203.0.113.9'"),
        ("no-such-name.invalid", 8000, "has no address"),
        (None, 0, "must be from 1 to 65535"),
        (None, 70000, "must be from 1 to 65535"),
    ],
)
def test_an_address_that_cannot_be_served_is_a_sentence(host, port, says):
    with pytest.raises(InputError, match=says):
        free_port(host, port)


@pytest.mark.parametrize(
    "raised",
    [
        OSError("Cannot find empty port in range: 7860-7860."),
        Exception(
            "Couldn't start the app because 'x' failed (code 502). Check your proxy to ensure localhost is accessible."
        ),
    ],
)
def test_start_errors_of_gradio_are_a_sentence(raised):
    with pytest.raises(DitsError, match=r"start again|Start again"), start_errors(7860):
        raise raised


# --- Memory ---


class Full:
    """A model whose GPU has memory for `room` items. `first` is called once, before the first computation."""

    def __init__(self, encode, room, first=lambda batch: None):
        self.encode, self.room, self.refused, self.first = encode, room, 0, first

    def __call__(self, batch, *more, **named):
        first, self.first = self.first, lambda batch: None
        first(batch)
        if len(batch) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.encode(batch, *more, **named)


def test_a_full_gpu_is_an_error_message_and_the_next_query_is_answered(tiny_corpus, tiny_folder):
    with running(corpus=str(tiny_corpus), encoder=f"local-dir:{tiny_folder}") as app:
        client, encoder = Client(app.url, verbose=False), app.sources.engine().encoder
        before = client.predict("a plain colour", "mean", 3, api_name="/search")["results"]
        model, whole = encoder.module, encoder.module.encode_text
        model.encode_text = Full(whole, 0)
        for name, arguments in {"/search": ("a plain colour", "mean", 3), "/embed": (["a plain colour"],)}.items():
            with pytest.raises(AppError, match="The GPU has no memory left for this: try again"):
                client.predict(*arguments, api_name=name)
        waiting = app.sources.engine()._batcher._waiting
        model.encode_text = full = Full(whole, 1, lambda batch: wait_for(lambda: len(batch) + len(waiting) == 4))
        clients = [Client(app.url, verbose=False) for _ in range(4)]
        asking = [one.submit("a plain colour", "mean", 3, api_name="/search") for one in clients]
        assert [one.result()["results"] for one in asking] == [before] * 4
        assert full.refused > 0  # the waiting queries were one batch, which was then split
        model.encode_text = whole
        assert client.predict("a plain colour", "mean", 3, api_name="/search")["results"] == before


def test_frames_are_embedded_in_smaller_batches_if_memory_is_short(tiny_folder, monkeypatch):
    monkeypatch.setattr("dits.encoders.openclip._CPU_IMAGE_BATCH", 16)
    encoder = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    pixels = torch.randint(0, 256, (3, 12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = encoder.encode_pixels(pixels)
    model = encoder.module
    model.encode_image = full = Full(model.encode_image, 3)
    torch.testing.assert_close(encoder.encode_pixels(pixels), expected)
    assert full.refused > 0
    full.room = 0
    with pytest.raises(MemoryFullError, match="no memory left"):
        encoder.encode_pixels(pixels)


@pytest.mark.parametrize("room", [1, 2, 5, 64])
def test_in_parts_computes_all_in_order(room):
    compute = Full(lambda items: items * 2, room)
    items = torch.arange(13)
    assert torch.equal(compute_in_batches(compute, items, 32), items * 2)
    assert (compute.refused > 0) == (room < 13)


# --- Clocks ---


@pytest.mark.parametrize("days", [-1, 1])
def test_a_changed_clock_deletes_no_uploads_early(days, tmp_path, monkeypatch):
    process_folder = ProcessFolder(tmp_path)
    clock = SimpleNamespace(day=time.time(), passed=1000.0)
    monkeypatch.setattr(time, "time", lambda: clock.day)
    monkeypatch.setattr(time, "monotonic", lambda: clock.passed)
    before, after, coming = (process_folder.uploads / name for name in ("before.mp4", "after.mp4", "coming.mp4"))

    def left(passed):
        clock.passed = passed
        process_folder.forget_uploads(600)
        return {path.name for path in process_folder.uploads.iterdir()}

    before.write_text("a video")
    coming.write_text("a part")
    assert left(1000.0) == {"before.mp4", "coming.mp4"}
    clock.day += days * 86_400
    after.write_text("a video")
    os.utime(after, (clock.day, clock.day))
    assert left(1001.0) == {"before.mp4", "after.mp4", "coming.mp4"}
    coming.write_text("a longer part")
    assert left(1600.0) == {"before.mp4", "after.mp4", "coming.mp4"}
    assert left(1600.5) == {"after.mp4", "coming.mp4"}
    assert left(1602.0) == {"coming.mp4"}
    assert left(2201.0) == set()
    process_folder.close()

"""The running app where something breaks under it: files that vanish, a full disk, killed processes, signals to end."""

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
from dits.common.memory import in_parts
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
from ui.services.media import NOTHING

QUERY = "a dog riding a skateboard"
ASKED = 5
DISK = 96_000_000  # bytes: the demo's clips are a quarter of that


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small disk where one can be mounted, else a folder; (its path, whether it is one)."""
    mounted = tmp_path_factory.mktemp("disk")
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(mounted)]
    small = shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0
    yield mounted, small
    if small:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.fixture(scope="module")
def app(demo, engine, disk, tmp_path_factory):
    """An app with a cache, temporary files, weights and an index of its own: what tests break of it, they mend."""
    at, _ = disk
    cache, weights, temporary = at / "cache", tmp_path_factory.mktemp("weights"), at / "tmp"
    temporary.mkdir()
    shutil.copytree(demo_folder(), cache / "demo" / demo_folder().name)
    for method in ("xpool", "dits"):
        shutil.copy(bundled_weights(method, engine.encoder.id), weights)
    environment = {"DITS_CACHE": str(cache), "TMPDIR": str(temporary)}
    said = (tmp_path_factory.mktemp("said") / "stderr").open("w+")
    arguments = ("--no-warm", "--weights", str(weights), "--index", str(at / "index"))
    process, url = serve(*arguments, environment=environment, said=said)
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
    """An event of the page, as a browser sends it: (whether it went well, its output)."""
    return asked(app.url, app.events[name], list(data), app.session)


def searched(app):
    """What every method finds."""
    methods = ("dits", "xpool", "mean")
    return {name: app.client.predict(QUERY, name, 5, api_name="/search")["results"] for name in methods}


def add(app, clips):
    """Adds a folder of clips on the page, and what the page says once that has ended."""
    well, output = event(app, "add", str(clips), None, "every 10 seconds", 10)
    assert well, output
    return outcome(app)


def outcome(app):
    well, output = event(app, "follow_1")
    assert well, output
    return str(output["data"][0])


# --- Files that vanish ---


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


def test_a_cache_emptied_while_the_app_runs(app, demo):
    before = searched(app)
    for entry in app.cache.iterdir():
        shutil.rmtree(entry)
    assert searched(app) == before
    clips = {clip.id: clip.path for clip in demo}
    found = [result["id"] for result in before["dits"][:2]]
    wanted = [f"{app.url}{kind}/corpus/{name}" for name in found for kind in ("clip", "thumbnail")] * 2
    with ThreadPoolExecutor(8) as pool:  # as a page asks for what it shows
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
    assert answer(f"{app.url}clip/corpus/no-such-clip")[::2] == (404, NOTHING.encode())


def test_a_clip_that_is_gone_and_cannot_be_made_again_is_a_sentence(app):
    [clip] = app.client.predict(QUERY, "dits", 1, api_name="/search")["results"]
    shutil.rmtree(app.cache)
    app.cache.write_text("a file")
    try:
        for kind in ("clip", "thumbnail"):
            assert answer(f"{app.url}{kind}/corpus/{clip['id']}")[::2] == (404, NOTHING.encode())
        assert searched(app)["dits"][0] == clip
        assert app.client.predict(QUERY, "mean", api_name="/trajectory")["steps"]
    finally:
        app.cache.unlink()
    assert answer(app.url.rstrip("/") + clip["video"])[0] == 200


# --- A full disk ---


def test_a_full_disk(app, disk, tmp_path):
    """Of the cache, of uploads and of one's own index at once."""
    if not disk[1]:
        pytest.skip("no disk may be mounted here")
    clips = write_clips(tmp_path / "clips")
    fill = app.disk / "fill"
    filled(fill)
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


def filled(path):
    """Writes a file until there is no room for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


# --- Processes that are killed ---


@pytest.mark.skipif(sys.platform != "linux", reason="finds the app's processes where Linux lists them")
def test_workers_that_are_killed(app, tmp_path):
    """All that decode are killed for as long as the run lasts: it ends, says so, and begins anew when it is told to."""
    clips = write_clips(tmp_path / "clips", seconds=2)
    ended = threading.Event()
    killed = []

    def kill():
        while not ended.is_set():
            for pid in set(below(app.process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.01)  # what would be waited for is the next process's start

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
    """The processes that a process has started, and those that they have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


# --- The end ---


def test_a_signal_to_end_lets_answers_out_first(app, tmp_path):
    """The last test of this app. Meanwhile a page is open, and videos are being added."""
    clips = write_clips(tmp_path / "clips", seconds=30)
    event(app, "add", str(clips), None, "another length", 0.25)
    with open_page(app.url) as beats:
        assert next(beats) == "data: ALIVE"
        with ThreadPoolExecutor(ASKED) as pool:  # they are answered one after the other
            asked_for = [submitted(app.url, seed) for seed in range(ASKED)]
            answers = [pool.submit(fetched, app.url, name) for name in asked_for]
            wait_for(answers[0].done)
            began = time.monotonic()
            app.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(app.url))
            answered = [answer.result() for answer in answers]
        assert app.process.wait(timeout=30) == 0
    assert time.monotonic() - began < 20
    assert [kind for kind, _ in answered] == ["event: complete"] * ASKED
    assert all(json.loads(data.removeprefix("data: "))[0]["query"] == QUERY for _, data in answered)
    assert [path for path in app.temporary.rglob("*") if "dits-" in path.name and any(path.iterdir())] == []
    app.said.seek(0)
    assert "Traceback" not in app.said.read()
    index = VideoIndex.open(str(app.index), load_encoder("bundled", "cpu"))
    assert index.counts()["segments"] < 360


def submitted(url, seed):
    """The name of an answer that takes a while."""
    data = [QUERY, "dits", 30, 0.5, seed, 8, False]
    return httpx.post(f"{url}gradio_api/call/trajectory", json={"data": data}).json()["event_id"]


def fetched(url, name):
    """That answer, once it is there: its kind, and what it says."""
    said = httpx.get(f"{url}gradio_api/call/trajectory/{name}", timeout=60).text
    kind, data = [line for line in said.splitlines() if line and "heartbeat" not in line and line != "data: null"]
    return kind, data


@contextmanager
def open_page(url):
    """What the app sends to a page for as long as it is open."""
    with httpx.stream("GET", f"{url}gradio_api/heartbeat/somebody", timeout=60) as stream:
        yield stream.iter_lines()


def refuses(url):
    """Whether nothing new can be asked, in a sentence or because nobody listens any more."""
    with suppress(httpx.HTTPError):
        sent = httpx.post(f"{url}gradio_api/call/search", json={"data": ["a cat", "dits", 1, False]})
        return sent.status_code == 503 and "is being ended" in sent.json()["detail"]
    return True


def test_control_c_while_weights_are_prepared(tiny_corpus, tiny_folder, tmp_path):
    cache = tmp_path / "cache"
    with (tmp_path / "stderr").open("w+") as said:
        arguments = ("--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}")
        process, url = serve(*arguments, environment={"DITS_CACHE": str(cache), "TMPDIR": str(tmp_path)}, said=said)
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


@pytest.mark.skipif(sys.platform == "win32", reason="a process is told to end differently there")
def test_a_second_signal_ends_at_once():
    script = (
        "import time\nfrom ui.runtime.shutdown import listen_for_the_end\nlisten_for_the_end()\n"
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
    with pytest.raises(InputError, match=f"The port {taken} is taken: end what listens there"):
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
def test_where_nothing_can_be_served_is_a_sentence(host, port, says):
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
def test_what_gradio_says_where_it_cannot_start_is_a_sentence(raised):
    with pytest.raises(DitsError, match=r"start again|Start again"), start_errors(7860):
        raise raised


# --- Memory ---


class Full:
    """A model whose GPU has room for so many things at once. `first` is called before it computes at all."""

    def __init__(self, encode, room, first=lambda batch: None):
        self.encode, self.room, self.refused, self.first = encode, room, 0, first

    def __call__(self, batch, *more, **named):
        first, self.first = self.first, lambda batch: None
        first(batch)
        if len(batch) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.encode(batch, *more, **named)


def test_a_gpu_without_memory_is_said_to_the_visitor_and_the_next_one_is_answered(tiny_corpus, tiny_folder):
    with running(corpus=str(tiny_corpus), encoder=f"local-dir:{tiny_folder}") as app:
        client, encoder = Client(app.url, verbose=False), app.sources.engine().encoder
        before = client.predict("a plain colour", "mean", 3, api_name="/search")["results"]
        model, whole = encoder._model, encoder._model.encode_text
        model.encode_text = Full(whole, 0)
        for name, arguments in {"/search": ("a plain colour", "mean", 3), "/embed": (["a plain colour"],)}.items():
            with pytest.raises(AppError, match="The GPU has no memory left for this: try again"):
                client.predict(*arguments, api_name=name)
        waiting = app.sources.engine()._answers._waiting
        model.encode_text = full = Full(whole, 1, lambda batch: wait_for(lambda: len(batch) + len(waiting) == 4))
        clients = [Client(app.url, verbose=False) for _ in range(4)]
        asking = [one.submit("a plain colour", "mean", 3, api_name="/search") for one in clients]
        assert [one.result()["results"] for one in asking] == [before] * 4
        assert full.refused > 0  # those that waited for the first were asked together, and then fewer at once
        model.encode_text = whole
        assert client.predict("a plain colour", "mean", 3, api_name="/search")["results"] == before


def test_frames_are_embedded_fewer_at_once_where_memory_is_short(tiny_folder, monkeypatch):
    monkeypatch.setattr("dits.encoders.openclip._IMAGES_AT_ONCE_ON_CPU", 16)
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
    assert torch.equal(in_parts(compute, items, 32), items * 2)
    assert (compute.refused > 0) == (room < 13)


# --- Clocks ---


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_deletes_no_uploads_early(days, tmp_path, monkeypatch):
    scratch = ProcessFolder(tmp_path)
    clock = SimpleNamespace(day=time.time(), passed=1000.0)
    monkeypatch.setattr(time, "time", lambda: clock.day)
    monkeypatch.setattr(time, "monotonic", lambda: clock.passed)
    before, after, coming = (scratch.uploads / name for name in ("before.mp4", "after.mp4", "coming.mp4"))

    def left(passed):
        clock.passed = passed
        scratch.forget_uploads(600)
        return {path.name for path in scratch.uploads.iterdir()}

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
    scratch.close()

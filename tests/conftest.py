import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as in ui/__init__.py, before MKL computes anything

import numpy as np
import open_clip
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from safetensors.torch import save_file

from dits.corpora.demo import build_demo
from dits.encoders.openclip import load_encoder
from dits.search.loading import load_engine
from tests.helpers.videos import write_video

NOBODY = 65534
REPOSITORY = Path(__file__).resolve().parent.parent

PAUSE = 0.2
"""Seconds between two requests to a starting app. Without a pause it would answer requests instead of loading."""

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Limits tests and their child processes to one thread, because threads slow down small matrices.

    Benchmarks use all threads.
    """
    if item.get_closest_marker("benchmark") is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)


def write_open_clip_folder(folder, config=TINY, seed=0):
    """A small OpenCLIP model with random weights, saved in OpenCLIP's own folder format."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**json.loads(json.dumps(config)))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.eval()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    write_open_clip_folder(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_folder):
    return load_encoder(f"local-dir:{tiny_folder}", device="cpu")


@pytest.fixture
def unprivileged_folder():
    """A folder whose owner runs the test, without root's rights, so that permissions have an effect."""
    with tempfile.TemporaryDirectory() as name:
        if os.getuid() != 0:
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """A folder with twelve coloured clips, two captions per clip, four clips per split."""
    folder = tmp_path_factory.mktemp("corpora") / "tiny"
    folder.mkdir()
    lines = ["clip,group,split,caption"]
    for number in range(12):
        shade = np.full((48, 64, 3), 0, np.uint8)
        shade[..., number % 3] = 60 + 16 * number
        write_video(folder / f"clip{number}.mp4", [shade] * 15, size=(64, 48))
        split = ("train", "validation", "test")[number % 3]
        lines += [f"clip{number},g{number},{split},{text} {number}" for text in ("a plain colour", "some shade of")]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def demo():
    """The whole demo corpus, built in the user's cache folder if it is missing."""
    return build_demo()


@pytest.fixture(scope="session")
def engine(demo):
    """The app's engine: the demo corpus, the bundled encoder and the shipped weights."""
    return load_engine()


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(*arguments, environment=None, stderr=None):
    """Starts `python app.py` as a user does; returns the process and its address when it answers.

    `stderr` is a file for its standard error.
    """
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | (environment or {}), stderr=stderr)
    url = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return process, url
        except OSError:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=PAUSE)
    process.kill()
    raise RuntimeError("app.py did not answer")


def first_answer(url, method="dits"):
    """Searches until the app has loaded; raises any error except 'Not ready yet'."""
    client = Client(url, verbose=False)
    deadline = time.monotonic() + 300
    while True:
        try:
            return client.predict("warm up", method, 1, api_name="/search")
        except AppError as error:
            if "Not ready yet" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)


@pytest.fixture(scope="session")
def outside_log(tmp_path_factory):
    """The log of the running app's attempts to reach other machines, one per line (tests/audit)."""
    path = tmp_path_factory.mktemp("outside") / "log"
    path.touch()
    return path


@pytest.fixture(scope="session")
def app_url(demo, outside_log):
    """The address of the running app, with everything loaded."""
    process, url = serve(
        environment={"PYTHONPATH": str(REPOSITORY / "tests" / "audit"), "OUTSIDE_LOG": str(outside_log)}
    )
    try:
        first_answer(url)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert outside_log.read_text() == ""  # for all tests of this session


@pytest.fixture(scope="session")
def served(app_url):
    """A client of the running app's API."""
    return Client(app_url, verbose=False)

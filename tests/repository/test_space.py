"""The repository as a Hugging Face Space: its settings in the README, and the Space itself, built and run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.conftest import NOBODY, REPOSITORY
from tools.requirements import read_lock, read_requirements

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
HARDWARE = {
    "cpu-basic", "cpu-upgrade", "t4-small", "t4-medium", "l4x1", "l4x4", "l40sx1", "l40sx4", "l40sx8", "a10g-small",
    "a10g-large", "a10g-largex2", "a10g-largex4", "a100-large", "a100x4", "a100x8",
}  # fmt: skip
KINDS = {
    "title": str, "emoji": str, "colorFrom": str, "colorTo": str, "sdk": str, "sdk_version": str,
    "python_version": str, "app_file": str, "fullWidth": bool, "header": str, "pinned": bool, "license": str,
    "short_description": str, "thumbnail": str, "suggested_hardware": str, "startup_duration_timeout": str,
    "models": list, "tags": list,
}  # fmt: skip
"""The documented keys that this Space sets, with the types of their values."""

QUERY = "a dog riding a skateboard"

BASE = ("datasets", "huggingface-hub>=0.30", "hf-transfer>=0.1.4", "protobuf<4", "click<8.1")
"""Packages that the platform installs before a Space's own requirements, according to its build logs."""

PLATFORM = {
    "SYSTEM": "spaces",
    "SPACE_ID": "someone/dits",
    "SPACE_AUTHOR_NAME": "someone",
    "SPACE_REPO_NAME": "dits",
    "SPACE_HOST": "someone-dits.hf.space",
    "GRADIO_ALLOW_FLAGGING": "never",
    "GRADIO_NUM_PORTS": "1",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_THEME": "huggingface",
    "HF_HUB_ENABLE_HF_TRANSFER": "1",
    "PYTHONUNBUFFERED": "1",
    "TQDM_POSITION": "-1",
    "TQDM_MININTERVAL": "1",
}
"""Environment variables that the platform sets for a Space."""

CUT_OFF = """
set -e
ip link set lo up
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true
ip link add outside type veth peer name nowhere
ip link set nowhere up
ip link set outside arp off up
ip address add 192.0.2.1/24 dev outside
ip route add default dev outside
exec setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs "$@"
"""
"""A separate network: loopback, and an interface without a peer that counts the packets sent to it."""

ASK = """
import json, os, sys, time, urllib.request
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # of the client, not of the Space
began = time.monotonic()
while True:
    try:
        page = urllib.request.urlopen("http://127.0.0.1:7860/", timeout=5).read()
        break
    except OSError:
        if time.monotonic() - began > 300:
            raise
        time.sleep(0.2)
answers = time.monotonic() - began
from gradio_client import Client
from gradio_client.exceptions import AppError
client = Client("http://127.0.0.1:7860/", verbose=False)
while True:
    try:
        found = client.predict(query=sys.argv[1], method="dits", top=5, api_name="/search")
        break
    except AppError as error:
        if "Not ready yet" not in str(error):
            raise
        time.sleep(0.5)
ranks = time.monotonic() - began
video = urllib.request.urlopen("http://127.0.0.1:7860" + found["results"][0]["video"]).read()
print(json.dumps({"answers": answers, "ranks": ranks, "found": found, "page": len(page), "video": len(video)}))
"""
"""Calls the Space from inside its network until it answers, and then until it ranks."""


@pytest.fixture(scope="module")
def front():
    """The front matter of the README: the Space's settings."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)[1])


def test_the_settings_have_the_documented_types(front):
    assert {key: type(value) for key, value in front.items()} == KINDS
    assert {front["colorFrom"], front["colorTo"]} <= COLOURS
    assert front["sdk"] == "gradio"
    assert front["header"] in ("mini", "default")
    assert front["suggested_hardware"] in HARDWARE
    assert re.fullmatch(r"3\.\d+(\.\d+)?", front["python_version"])
    assert re.fullmatch(r"\d+[mh]", front["startup_duration_timeout"])
    assert len(front["short_description"]) <= 60
    assert all(isinstance(name, str) for key in ("models", "tags") for name in front[key])
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in front["models"])


def test_the_settings_name_existing_files(front):
    assert (REPOSITORY / front["app_file"]).is_file()
    with Image.open(REPOSITORY / front["thumbnail"]) as thumbnail:
        thumbnail.verify()
        assert min(thumbnail.size) >= 512
    assert (REPOSITORY / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert front["license"] == "mit"


def test_gradio_has_the_release_of_the_lock_and_the_ranges(front):
    [locked] = [package for package in read_lock() if package.name == "gradio"]
    [required] = [requirement for requirement in read_requirements() if requirement.name == "gradio"]
    assert front["sdk_version"] == str(locked.version)
    assert required.specifier.contains(front["sdk_version"])


def test_debian_packages_are_named_one_per_line():
    lines = (REPOSITORY / "packages.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", line) for line in lines)


def test_the_interface_without_a_peer_counts_packets():
    """Without this, the next test could not fail."""
    _need_namespaces()
    send = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); input(); s.sendto(b'x', ('192.0.2.9', 53)); input()"
    )
    with _cut_off(sys.executable, "-c", send, stdin=subprocess.PIPE, text=True) as process:
        counts = []
        for _ in range(2):
            time.sleep(0.5)
            counts.append(_sent(process))
            process.stdin.write("\n")
            process.stdin.flush()
    assert counts == [0, 1]


@pytest.fixture
def home():
    """A folder that other users can read, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="dits-space-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.slow
def test_the_space_is_built_as_the_platform_builds_it_and_searches_without_a_network(front, engine, home):
    """By the documented steps, in a folder with only the tracked files, as an unprivileged user with a home."""
    app, python = home / "app", home / "python" / "bin" / "python"
    _need_namespaces()
    _check_out(app)
    times = _built(front, app, python)
    for path in (home, *home.glob("app/**/*"), app):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    process = _started(home, app, python, front["app_file"])
    try:
        answer = _inside(process, str(python), "-c", ASK, QUERY)
        sent = _sent(process)
    finally:
        process.terminate()
        process.wait(timeout=60)
    answers = json.loads(answer)
    expected = engine.search(QUERY, "dits", 5).as_dict()["results"]
    assert [hit["id"] for hit in answers["found"]["results"]] == [hit["id"] for hit in expected]
    assert answers["video"] > 1000
    assert not (home / "outside").exists(), (home / "outside").read_text()
    assert sent == 0
    size = sum(path.lstat().st_size for path in python.parents[1].rglob("*") if path.is_file()) / 2**30
    print(
        f"\nthe Space: packages {times['base']:.0f} s, requirements {times['requirements']:.0f} s, Gradio "
        f"{times['sdk']:.0f} s, {size:.1f} GiB; started, it answers in {answers['answers']:.0f} s and ranks in "
        f"{answers['ranks']:.0f} s"
    )


def _check_out(folder):
    """Extracts the tracked files of the last commit."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def _built(front, app, python):
    """Installs the Debian and Python packages; returns the seconds of each step."""
    packages = (app / "packages.txt").read_text().split()
    if subprocess.run(["dpkg", "--status", *packages], capture_output=True).returncode:
        subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=True)
    own = _interpreter(front["python_version"], app.parent / "interpreter")
    subprocess.run([own, "-m", "venv", python.parents[1]], check=True)
    sdk = f"gradio[oauth,mcp]=={front['sdk_version']}"
    steps = {
        "base": BASE,
        "requirements": ("--requirement", str(app / "requirements.txt")),
        "sdk": (sdk, "uvicorn>=0.14.0", "websockets>=10.4", "spaces"),
    }
    times = {}
    for name, requirements in steps.items():
        began = time.monotonic()
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *requirements], check=True)
        times[name] = time.monotonic() - began
    return times


def _interpreter(version, folder):
    """The current interpreter or one of pyenv's with this version, copied into a folder that all users can read."""
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for interpreter in (sys.executable, shutil.which(f"python{version}"), *map(str, pyenv)):
        code = "import sys; print(sys.base_prefix, *sys.version_info[:2])"
        done = subprocess.run([interpreter or "false", "-c", code], capture_output=True, text=True)
        prefix, *found_version = done.stdout.split() or [""]
        if ".".join(found_version) == version:
            for part in ("bin", "include", "lib"):
                left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__")
                shutil.copytree(Path(prefix) / part, folder / part, symlinks=True, ignore=left_out)
            return folder / "bin" / f"python{version}"
    pytest.skip(f"Python {version}, which the Space needs, is not installed")


def _need_namespaces():
    tools = all(map(shutil.which, ("unshare", "nsenter", "setpriv", "ip")))
    if os.getuid() != 0 or not tools or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("only root, where namespaces are permitted, can cut off the network of a process")


def _started(home, app, python, file):
    own = {
        "HOME": str(home),
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "PYTHONPATH": f"{app}:{app / 'tests' / 'audit'}",
        "LD_LIBRARY_PATH": str(home / "interpreter" / "lib"),
    }
    return _cut_off(str(python), file, cwd=app, env={**own, **PLATFORM, "OUTSIDE_LOG": str(home / "outside")})


def _cut_off(*command, **options):
    """Starts a command in a separate network, as the user nobody."""
    process = subprocess.Popen(
        ["unshare", "--net", "bash", "-c", CUT_OFF.format(user=NOBODY), "-", *command], **options
    )
    here = os.readlink("/proc/self/ns/net")
    while process.poll() is None and os.readlink(f"/proc/{process.pid}/ns/net") == here:
        time.sleep(0.01)
    return process


def _inside(process, *command):
    """The output of a command that runs in the network of a process."""
    enter = ["nsenter", "--target", str(process.pid), "--net", *command]
    return subprocess.run(enter, capture_output=True, text=True, check=True, timeout=1800).stdout


def _sent(process):
    """The number of packets that a process sent to the outside."""
    [line] = [line for line in _inside(process, "cat", "/proc/net/dev").splitlines() if "outside:" in line]
    return int(line.split(":")[1].split()[9])

"""Resource exhaustion: bodies, uploads, pictures, frames and nesting that would fill memory or disk, or take long."""

import struct
import time
from contextlib import suppress
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.requests import Request

from dits.common.errors import VideoError
from dits.video.sampling import sample_frames
from tests.attacks.asking import call_api, event, send
from tests.attacks.attack import attack
from tests.attacks.memory import little_memory
from tests.attacks.test_paths import CUT
from tests.attacks.test_sessions import number_of
from tests.helpers.own_videos import uploaded, wait_for
from tests.helpers.videos import stamp, write_video
from ui.server.middleware import MAX_BODY_BYTES
from ui.server.uploads import Uploads
from ui.services.visitors import Limits

JSON = {"Content_Type": "application/json"}
POSTED = ("queue/join", "call/search", "call/v2/search", "run/search", "cancel", "reset", "mcp/")


@attack("every address that takes a body", "3 MB of JSON, with a stated length and in chunks", "413")
def test_bodies_that_are_too_large(app_url):
    def pieces():
        for _ in range(30):
            yield b" " * 100_000

    assert MAX_BODY_BYTES < 3_000_000
    for target in POSTED:
        announced = send(app_url, f"/gradio_api/{target}", "POST", b"", Content_Length="3000000", **JSON)
        assert (announced.status, announced.sentence[:36]) == (413, "The request is too large: at most 2 "), target
        sent = httpx.post(
            f"{app_url}gradio_api/{target}", content=pieces(), headers={"Content-Type": "application/json"}
        )
        assert sent.status_code == 413, target
        assert "The request is too large: at most 2 MB, except for uploads." in sent.text


@attack(
    "every address that takes a body",
    "JSON of 100,000 brackets, invalid JSON, invalid UTF-8, other types",
    "an error message",
)
def test_bodies_that_are_not_json(app_url):
    nested = b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b',"fn_index":1,"session_hash":"a"}'
    for body in (nested, b"[" * 100_000, b"", b"\xff\xfe\x00", b'{"data": NaN}', b'"a"', b"[]", b"null"):
        for target in ("queue/join", "call/search", "run/search", "cancel"):
            answer = send(app_url, f"/gradio_api/{target}", "POST", body, **JSON)
            assert answer.status in (400, 422), (target, body[:20])
            assert answer.sentence
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        answer = send(app_url, "/gradio_api/queue/join", "POST", b'{"data": []}', Content_Type=kind)
        assert answer.status in (400, 422)
        assert answer.sentence


@attack(
    "addresses and headers",
    "50,000 characters of path, query string or headers, and 3,000 ranges of a file",
    "404, 4xx, at most two copies of the file",
)
def test_addresses_and_headers_that_are_too_long(app_url, engine):
    assert send(app_url, "/?q=" + "x" * 5000).status == 404
    for target, headers in (("/" + "x" * 50_000, {}), ("/?" + "a=1&" * 20_000, {}), ("/", {"X_Long": "y" * 200_000})):
        with suppress(OSError):  # it may hang up
            assert 400 <= send(app_url, target, **headers).status < 500
    clip = f"/clip/corpus/{engine.corpus.ids[0]}"
    whole = len(send(app_url, clip).body)
    for parts in ("0-," * 3000 + "0-", ",".join(f"{n}-{n}" for n in range(0, 6000, 2))):
        answer = send(app_url, clip, Range=f"bytes={parts}")
        assert answer.status in (200, 206, 400, 416)
        assert len(answer.body) <= 2 * whole


@attack(
    "the API",
    "a query of 1.9 million characters, 20 long texts, numbers of 400 digits",
    "truncated with a notice, or an error message",
)
def test_queries_that_are_too_long(app_url):
    began = time.monotonic()
    well, found = call_api(app_url, "search", "a dog " * 316_000, "mean", 1, False)
    assert well
    assert len(found["query"]) <= 20_000
    assert "longer than the encoder reads" in found["notice"]
    well, found = call_api(app_url, "embed", ["x" * 19_000] * 20, None)
    assert well
    well, said = call_api(app_url, "search", "a dog", "mean", 10**400, False)
    assert (well, said) == (False, "The number of results must be from 1 to 100, not that.")
    assert time.monotonic() - began < 30


@attack(
    "uploads",
    "fields other than files, 10,000 files, no length, other forms, a damaged form",
    "rejected before it is stored",
)
def test_invalid_upload_forms(hosted):
    address, folder = f"{hosted.url}gradio_api/upload", get_upload_folder()

    def sent(content, boundary="x", **headers):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"} | headers
        return httpx.post(address, content=content, headers=headers)

    head = b'--x\r\nContent-Disposition: form-data; name="files"'
    file = head + b'; filename="a.mp4"\r\n\r\ny\r\n'
    for content, status, says in (
        (head + b"\r\n\r\n" + b"y" * 10**6 + b"\r\n--x--\r\n", 400, "An upload may contain only files."),
        (file * 10_000 + b"--x--\r\n", 413, "At most 20 files can be uploaded at a time."),
        (b"nothing of the kind", 400, "The upload is not a form with files, or is damaged."),
        (iter([file, b"--x--\r\n"]), 411, "An upload must state its length in the header Content-Length."),
    ):
        answer = sent(content)
        assert answer.status_code == status
        assert says in answer.text
    for kind in ("text/plain", "multipart/form-data", "multipart/mixed; boundary=x", ""):
        answer = sent(file + b"--x--\r\n", **{"Content-Type": kind})
        assert (answer.status_code, answer.text) == (400, "An upload must be a form with files (multipart/form-data).")
    assert not [path for path in _files(folder) if path.name == "a.mp4"]


def _files(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@attack("uploads", "a file above the limit, and more than a visitor's limit within ten minutes", "413")
def test_uploads_that_are_too_large(hosted):
    limits = hosted.sources.libraries.limits
    announced = str(limits.files * limits.megabytes * 1_000_000 + 10**6)
    kind = {"Content_Type": "multipart/form-data; boundary=x", "Content_Length": announced}
    answer = send(hosted.url, "/gradio_api/upload", "POST", b"", **kind)
    assert answer.status == 413
    assert "MB within 10 minutes" in answer.sentence
    hosted.blocks.max_file_size, before = 1000, hosted.blocks.max_file_size
    try:
        sent = httpx.post(f"{hosted.url}gradio_api/upload", files={"files": ("a.mp4", bytes(100_000))})
    finally:
        hosted.blocks.max_file_size = before
    assert sent.status_code == 413
    assert before == limits.megabytes * 1_000_000


@attack(
    "uploads", "from many addresses, until the space for pending uploads is full", "503; pending uploads are bounded"
)
def test_uploads_that_fill_their_space(tmp_path):
    uploads = Uploads(Limits(files=2, megabytes=1, visitors=2, waiting=3), lambda: tmp_path)
    taken, refused = [], []
    for number in range(9):
        kind, size = b"multipart/form-data; boundary=x", b"1000000"
        headers = [(b"content-type", kind), (b"content-length", size), (b"x-forwarded-for", b"10.0.0.%d" % number)]
        upload = uploads.validate(Request({"type": "http", "headers": headers, "client": None}), None)
        try:
            upload.__enter__()
            taken.append(upload)
        except HTTPException as error:
            refused.append((error.status_code, error.detail))
    assert len(taken) == 3
    assert set(refused) == {(503, "Too many uploads wait to be added: try again in a few minutes.")}


def pixel_bomb(path):
    """A file of a few kilobytes whose header states 30,000 x 30,000 pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stamp(5, 64, 48), format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(struct.pack(">II", 64, 48), struct.pack(">II", 30_000, 30_000)))
    return path


def frame_bomb(path, frames):
    """A video of many frames that all repeat one packet."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        [packet] = [*stream.encode(frame), *stream.encode(None)]
        content, base = bytes(packet), packet.time_base
        for number in range(frames):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, True
            packet.pts = packet.dts = number
            container.mux(packet)
    return path


@attack(
    "videos",
    "900 megapixels in a few kilobytes; 200,000 frames; four billion samples",
    "an error message, or read in little memory",
)
def test_pictures_and_frames_that_would_fill_the_memory(tmp_path):
    lying = write_video(tmp_path / "samples.mp4", 12, size=(64, 48))
    data = bytearray(lying.read_bytes())
    for box, offset in ((b"stsz", 8), (b"stts", 8), (b"stts", 12)):
        struct.pack_into(">I", data, data.rindex(box) + offset, 0xFFFFFFF0)
    lying.write_bytes(data)
    began = time.monotonic()
    bomb = frame_bomb(tmp_path / "frames.mkv", 200_000)
    assert bomb.stat().st_size < 2**24
    with little_memory():
        with pytest.raises(VideoError):
            sample_frames(pixel_bomb(tmp_path / "pixels.avi"))
        with suppress(VideoError):
            assert len(sample_frames(lying).frames) == 12
        assert len(sample_frames(bomb).frames) == 12
    assert time.monotonic() - began < 60


@attack("a hosted page", "the same videos, uploaded and added", "a reason for each; searches work meanwhile")
def test_uploaded_bombs(hosted, tmp_path):
    libraries, session = hosted.sources.libraries, "bomber"
    clips = [
        pixel_bomb(tmp_path / "pixels.avi"),
        write_video(tmp_path / "hours.mkv", [stamp(n, 64, 48) for n in range(40)], fps=1, times=range(0, 36_000, 900)),
        tmp_path / "zeros.mp4",
    ]
    clips[2].write_bytes(bytes(10**7))
    sent = ["", [uploaded(hosted, clip) for clip in clips], *CUT]
    assert event(hosted.url, number_of(hosted, "VideosHandlers.add"), sent, session)[0]
    assert call_api(hosted.url, "search", "a colour", "mean", 1, False)[0]
    wait_for(lambda: not libraries.find(session).runs.running)
    status = libraries.find(session).status()
    reasons = {path.rpartition("/")[2]: reason for path, reason in status.failed}
    assert status.videos == 0
    assert set(reasons) == {clip.name for clip in clips}
    assert "longer than the maximum of 300 s" in reasons["hours.mkv"]
    assert all(reason.endswith(".") and "\n" not in reason for reason in reasons.values())
    libraries.leave(session)

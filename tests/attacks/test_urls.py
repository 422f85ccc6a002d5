"""Server-side request forgery (SSRF): the app never contacts an address that an attacker names."""

import json
import re
import struct

import pytest

from dits.cli.parser import main
from dits.common.errors import VideoError
from dits.video.sampling import sample_frames
from tests.attacks.asking import call_api, event, listening, send, sentence, tool
from tests.attacks.attack import attack
from tests.helpers.own_videos import called
from tests.helpers.videos import write_video

CUT = ("not at all", 10)


@pytest.fixture
def elsewhere():
    """The address of a server that must not be contacted."""
    with listening() as address:
        yield address


@attack("the upload field", "addresses as `path` and as `url` of a file", "rejected; no connection")
def test_addresses_in_the_upload_field(hosted, elsewhere):
    meta = {"meta": {"_type": "gradio.FileData"}, "orig_name": "a.mp4"}
    for path, url in ((f"{elsewhere}/a.mp4", None), ("a.mp4", f"{elsewhere}/a.mp4"), (f"{elsewhere}/a.mp4",) * 2):
        well, said = called(hosted, "add", ["", [meta | {"path": path, "url": url}], *CUT], "intruder")
        assert not well
        assert "Only files that were uploaded here" in said["error"]
    well, said = called(hosted, "add", ["", [f"{elsewhere}/a.mp4"], *CUT], "intruder")
    assert not well
    assert sentence(said["error"])


@attack("the folder field", "addresses: `http:`, `ftp:`, `s3:`, `rtsp:`, FFmpeg's own", "no such file; no connection")
def test_addresses_in_the_folder_field(app_url, elsewhere):
    host = elsewhere.partition("//")[2]
    [number] = [n for n, name in _events(app_url) if name == "add"]
    for scheme in ("http", "ftp", "s3", "rtsp", "tcp", "concat:http", "async:http", "subfile,,start,0,,:http"):
        well, said = event(app_url, number, [f"{scheme}://{host}/a.mp4", None, *CUT], "somebody")
        assert not well
        assert said.startswith("There is no file or folder")


@attack(
    "Gradio's proxies",
    "`proxy=`, `file=` and `stream/` with an address, and `url=` in the query string",
    "404; no connection",
)
def test_proxies(app_url, elsewhere):
    routes = ("proxy=", "file=", "file/", "stream/", "custom_component/", "deep_link?url=", "static/", "run-history/")
    for route in routes:
        for prefix in ("/gradio_api/", "/"):
            answer = send(app_url, f"{prefix}{route}{elsewhere}/x")
            assert answer.status == 404, route
            assert answer.sentence


@attack("tools of assistants (MCP)", "addresses of files in arguments, and resources", "rejected; no connection")
def test_addresses_in_arguments_of_tools(app_url, elsewhere):
    file = {"path": f"{elsewhere}/a", "url": f"{elsewhere}/a", "meta": {"_type": "gradio.FileData"}}
    query = {"video_id": "a", "caption": "b"} | file
    answer = tool(app_url, "tools/call", name="evaluate", arguments={"queries": [query]})
    assert answer["isError"]
    assert answer["content"][0]["text"] == "No tool here takes a file: give texts, numbers and ids."
    for texts in ([f"{elsewhere}/a"], [f"data:image/png;base64,{elsewhere}"]):
        assert not tool(app_url, "tools/call", name="embed", arguments={"texts": texts})["isError"]
    for uri in (f"{elsewhere}/a", "file:///etc/passwd"):
        assert "not found" in tool(app_url, "resources/read", uri=uri)["message"]


@attack("every endpoint of the API", "addresses as queries, ids and methods", "treated as text; no connection")
def test_addresses_in_every_endpoint(app_url, elsewhere):
    for endpoint, *values in (
        ("search", elsewhere, "mean", 1, False),
        ("trajectory", elsewhere, "dits", 1, None, None, 1, False),
        ("embed", [elsewhere], None),
    ):
        assert call_api(app_url, endpoint, *values)[0]
    for endpoint, *values in (("embed", ["x"], elsewhere), ("gap", elsewhere, "dits", "mean")):
        well, said = call_api(app_url, endpoint, *values)
        assert not well
        assert sentence(said)


@attack(
    "videos",
    "playlists (HLS, DASH, concat, SDP) with an address, named like videos",
    "not read as a video; no connection",
)
def test_playlists_that_lead_to_an_address(tmp_path, elsewhere):
    stream = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}/a.ts\n#EXT-X-ENDLIST\n"
    lists = {
        "hls.mp4": stream,
        "hls.m3u8": stream,
        "key.m3u8": stream.replace("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="{0}/k"\n#EXTINF'),
        "concat.mp4": "ffconcat version 1.0\nfile '{0}/a.mp4'\n",
        "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:full:2011" mediaPresentationDuration="PT1S"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="0" bandwidth="9" width="64" height="48"><BaseURL>{0}/a.mp4'
        "</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "redirect.asx": '<asx><entry><ref href="{0}/a.asf"/></entry></asx>',
        "rtsp.mov": "rtsptext\nrtsp://{0}/a",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text.format(elsewhere))
        with pytest.raises(VideoError, match=r"not a video|no video|cut off"):
            sample_frames(tmp_path / name)
    with pytest.raises(VideoError, match="does not exist"):
        sample_frames(f"{elsewhere}/a.mp4")


@attack(
    "videos",
    "an mp4 whose frames are at an address (data reference)",
    "frames of the file itself, or none; no connection",
)
def test_data_references(tmp_path, elsewhere):
    data = write_video(tmp_path / "a.mp4", 5, size=(64, 48)).read_bytes()
    own = struct.pack(">I4sI", 12, b"url ", 1)  # the box of a file's own data, flagged so
    assert data.count(own) == 1
    location = f"{elsewhere}/a.mp4".encode() + b"\0"
    other = struct.pack(">I4sI", 12 + len(location), b"url ", 0) + location
    grown = bytearray(data)
    at = data.index(own)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        size = data.rindex(box, 0, at) - 4
        struct.pack_into(">I", grown, size, struct.unpack_from(">I", data, size)[0] + len(location))
    grown[at : at + len(own)] = other
    (tmp_path / "b.mp4").write_bytes(grown)
    frames = sample_frames(tmp_path / "b.mp4", 2).frames
    assert frames.shape == (2, 48, 64, 3)


@attack(
    "the command line",
    "addresses as corpus table, weights, encoder and embeddings",
    "exit code 2, an error message; no connection",
)
@pytest.mark.parametrize(
    "words",
    [
        ["search", "x", "--corpus", "{}/captions.csv"],
        ["search", "x", "--weights", "{}/weights"],
        ["search", "x", "--encoder", "{}/model.safetensors"],
        ["search", "x", "--encoder", "local-dir:{}/model"],
        ["search", "x", "--encoder", "ViT-B-32/{}/model.safetensors"],
        ["analyse", "--features", "{}/a.npz", "--out", "runs"],
    ],
)
def test_addresses_on_the_command_line(words, elsewhere, demo, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(elsewhere) for word in words]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("dits: ")
    assert re.search("is missing|is no |is damaged|[Tt]here is no ", said)


def _events(app):
    return [(one["id"], one["api_name"]) for one in json.loads(send(app, "/config").body)["dependencies"]]

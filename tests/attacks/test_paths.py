"""Path traversal: only clips, their pictures and the page's own files are served."""

import os
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder

from dits.cli.parser import main
from tests.attacks.asking import call_api, send, sentence
from tests.attacks.attack import attack
from tests.helpers.own_videos import called, write_clips
from ui.services.media import content_type

UPWARDS = (
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "..%252f..%252f..%252fetc%252fpasswd",
    "..%5c..%5c..%5cetc%5cpasswd",
    "..%c0%af..%c0%afetc%c0%afpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "passwd%00.mp4",
    "~/.ssh/id_rsa",
    ".git/HEAD",
)
NOT_FOUND = "There is nothing at this address."
ONLY_UPLOADS = "Only files that were uploaded here can be named: upload the file."
CUT = ("not at all", 10)


@attack("`/clip`, `/thumbnail`", "`..` (encoded once, twice and incorrectly), absolute paths, NUL, `file://`", "404")
@pytest.mark.parametrize("route", ["clip", "thumbnail"])
def test_paths_in_the_place_of_ids(app_url, route):
    for path in UPWARDS:
        for token in ("corpus/", "guessed/", ""):
            answer = send(app_url, f"/{route}/{token}{path}")
            assert (answer.status, answer.sentence) == (404, NOT_FOUND), path


@attack("`/assets`, `/static` of Gradio's page", "the same paths, and names with a leading dot", "404")
@pytest.mark.parametrize("route", ["assets", "static", "static/img", "svelte", "theme.css"])
def test_paths_below_the_pages_own_files(app_url, route):
    for path in UPWARDS:
        assert send(app_url, f"/{route}/{path}").status == 404, path


@attack("Gradio's file routes", "`file=`, `file/` and `stream/` with absolute paths and the paths of clips", "404")
def test_files_by_their_paths(app_url, engine):
    clip = engine.corpus.clips[0].path
    for path in (*UPWARDS, str(clip), os.path.relpath(clip), "app.py", "assets/encoder/config.json"):
        for route in (
            "gradio_api/file=",
            "file=",
            "gradio_api/file/",
            "gradio_api/stream/",
            "gradio_api/proxy=file://",
        ):
            answer = send(app_url, f"/{route}{path}")
            assert (answer.status, answer.sentence) == (404, NOT_FOUND), path


@attack(
    "every endpoint of the API", "paths as methods, splits, ids and queries", "an error message, or treated as text"
)
@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", "~/.bashrc"])
def test_paths_in_every_endpoint(app_url, path):
    query = [{"video_id": path, "caption": "x"}]
    refused = [
        ("search", "a dog", path, 1, False),
        ("trajectory", "a dog", path, None, None, None, 1, False),
        ("gap", path, "dits", "mean"),
        ("gap", "test", path, "mean"),
        ("gap", "test", "dits", path),
        ("evaluate", query, "dits", "all", False),
        ("evaluate", query, "dits", path, False),
        ("embed", ["x"], path),
        ("corpus", path, 1, False),
    ]
    for endpoint, *values in refused:
        well, said = call_api(app_url, endpoint, *values)
        assert not well, endpoint
        assert sentence(said)
    well, found = call_api(app_url, "search", path, "mean", 1, False)
    assert well
    assert found["query"] == path
    assert "root:" not in str(found)


@attack("the upload field", "paths of files on the server instead of uploads", "rejected; no library is created")
def test_files_of_the_server_in_the_upload_field(hosted):
    own = {"path": str(Path(get_upload_folder()) / ".." / "x"), "meta": {"_type": "gradio.FileData"}}
    for path in ("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "/dev/zero", "", None, ["/etc"]):
        for sent in ([own | {"path": path}], {"a": own | {"path": path}}):
            well, said = called(hosted, "add", ["", sent, *CUT], "intruder")
            assert not well
            assert said["error"] == ONLY_UPLOADS
    for plain in ("/etc/passwd", ["/etc/passwd"]):
        well, said = called(hosted, "add", ["", plain, *CUT], "intruder")
        assert not well
        assert sentence(said["error"])
    assert hosted.sources.libraries.find("intruder") is None


@attack("a hosted page", "folders in the hidden folder field, and paths to remove", "rejected")
def test_folders_named_to_a_hosted_page(hosted):
    for path in ("/", "/etc", "~", ".", "/etc/passwd", "\0"):
        for name, sent in (("add", [path, None, *CUT]), ("remove", [path])):
            well, said = called(hosted, name, sent, "intruder")
            assert not well
            assert "Folders cannot be named here" in said["error"]
    assert hosted.sources.libraries.find("intruder") is None


@attack(
    "uploads",
    "names with `..`, slashes, backslashes, NUL, line breaks, 3,000 letters",
    "stored below the upload folder",
)
def test_names_of_uploads_outside_their_folder(hosted, tmp_path):
    folder = Path(get_upload_folder()).resolve()
    names = [f"../../../{tmp_path.name}.mp4", f"{tmp_path}/x.mp4", "..\\..\\x.mp4", "..", "CON", "a" * 3000 + ".mp4"]
    for name in (*names, "\nx.mp4", ".hidden.mp4", "a/\0b.mp4", "%2e%2e%2fx.mp4"):
        sent = httpx.post(f"{hosted.url}gradio_api/upload", files={"files": (name, b"content")})
        if sent.status_code == 200:
            [path] = sent.json()
            assert Path(path).resolve().is_relative_to(folder), name
            assert Path(path).read_bytes() == b"content"
        else:
            assert sent.status_code == 400, (name, sent.text)
    assert not list(tmp_path.iterdir())
    assert not list(folder.parent.parent.glob("*.mp4"))


@attack("uploads", "links to a file outside and to another link", "rejected; the file is not moved")
def test_links_among_uploads(hosted, tmp_path):
    secret = write_clips(tmp_path / "secret") / "red.mp4"
    folder = Path(get_upload_folder()) / "linked"
    folder.mkdir(parents=True)
    (folder / "one.mp4").symlink_to(secret)
    (folder / "two.mp4").symlink_to(folder / "one.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (tmp_path / "outside").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    for path in (folder / "one.mp4", folder / "two.mp4", folder / "loop.mp4", folder / "up" / "secret" / "red.mp4"):
        well, said = called(hosted, "add", ["", [{"path": str(path), "meta": {"_type": "gradio.FileData"}}], *CUT], "i")
        assert not well
        assert said["error"] == ONLY_UPLOADS
    assert secret.is_file()
    assert hosted.sources.libraries.find("i") is None


@attack("served files", "files named like pages and scripts", "a type that browsers do not display or guess")
def test_types_of_served_files(app_url, engine):
    for name in ("a.html", "a.svg", "a.xhtml", "a.js", "a.pdf", "a", "a.mp4.html"):
        assert content_type(Path(name)) == "application/octet-stream"
    answer = send(app_url, f"/clip/corpus/{engine.corpus.ids[0]}", Range="bytes=0-99")
    assert (answer.status, answer.headers["content-type"]) == (206, "video/mp4")
    assert answer.headers["x-content-type-options"] == "nosniff"


@attack("the command line", "a caption table with clip names outside its folder", "exit code 2, an error message")
@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "a\\b", "~"])
def test_clip_names_outside_their_folder(name, tmp_path, tiny_folder, capsys):
    (tmp_path / "captions.csv").write_text(f"clip,group,split,caption\n{name},g,test,words\n")
    command = ["search", "x", "--method", "mean", "--corpus", str(tmp_path), "--encoder", f"local-dir:{tiny_folder}"]
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is not a plain file name" in said or "there is no file" in said

"""Own videos over HTTP: served and rejected addresses, and the libraries of visitors of a hosted app."""

import os
import shutil

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from dits.common.errors import InputError, StorageError
from dits.search.loading import load_engine
from tests.helpers.own_videos import answer, called, request, running, uploaded, wait_for, write_clips
from ui.runtime.error_messages import show_errors
from ui.services.media import content_type
from ui.services.visitors import Limits, VisitorLibraries
from ui.tabs.videos import VideosHandlers

CUT = ("not at all", 10)
LIMITS = Limits(files=3, megabytes=1, seconds=3, visitors=2)


@pytest.fixture(scope="module")
def arguments(tiny_corpus, tiny_folder):
    return {"corpus": str(tiny_corpus), "encoder": f"local-dir:{tiny_folder}"}


@pytest.fixture(scope="module")
def local(arguments, tmp_path_factory):
    """A local app with three clips in segments of one second."""
    folder = tmp_path_factory.mktemp("own")
    with running(**arguments, index=str(folder / "index")) as app:
        app.clips, app.library = write_clips(folder / "clips", 2), app.sources.libraries.find(None)
        app.library.add([str(app.clips)], "1s")
        wait_for(lambda: not app.library.runs.running)
        yield app


@pytest.fixture(scope="module")
def hosted(arguments):
    with running(**arguments, hosted=True) as app:
        yield app


@pytest.fixture(scope="module")
def base(arguments):
    return load_engine(**arguments, allow_missing=True)


@pytest.fixture
def visitors(base, tmp_path):
    return VisitorLibraries(lambda: base, LIMITS, tmp_path / "visitors")


@pytest.fixture
def tab(visitors):
    return VideosHandlers(visitors)


@pytest.fixture
def uploads(tmp_path):
    """Uploaded clips, as Gradio hands them over: files of its own cache."""
    return [str(path) for path in sorted(write_clips(tmp_path / "gradio").iterdir())]


def add(tab, uploads, session="me", paths=""):
    show_errors(tab.add)(paths, uploads, *CUT, request(session))
    return list(tab.follow(request(session)))[-1]


def files_below(folder):
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]


# The routes


def test_a_clip_is_served_in_ranges_with_its_type(local):
    segment = local.library.engine().embeddings.ids[0]
    whole = local.library.file(segment).read_bytes()
    address = f"{local.url}clip/{local.library.token}/{segment}"
    status, headers, content = answer(address)
    assert (status, headers["content-type"], content) == (200, "video/mp4", whole)
    assert (headers["accept-ranges"], headers["x-content-type-options"]) == ("bytes", "nosniff")
    status, headers, content = answer(address, Range="bytes=10-19")
    assert (status, content) == (206, whole[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert answer(address, Range=f"bytes={len(whole)}-")[0] == 416


def test_a_picture_is_served(local):
    segment = local.library.engine().embeddings.ids[0]
    status, headers, content = answer(f"{local.url}thumbnail/{local.library.token}/{segment}")
    assert (status, headers["content-type"], content[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")


@pytest.mark.parametrize("kind", ["clip", "thumbnail"])
@pytest.mark.parametrize(
    "path",
    [
        "{token}/",
        "{token}/unknown",
        "{token}/../../etc/passwd",
        "{token}/..%2f..%2fetc%2fpasswd",
        "{token}/%2fetc%2fpasswd",
        "{token}/{clip}",
        "{token}/{segment}%00",
        "{token}/%27%20OR%20%27%27%3D%27",
        "guessed/{segment}",
        "/{segment}",
        "{segment}",
        "..%2f{token}/{segment}",
    ],
)
def test_nothing_else_is_served(local, kind, path):
    segment = local.library.engine().embeddings.ids[0]
    clip = str(local.clips / "red.mp4").replace("/", "%2f")
    filled = path.format(token=local.library.token, segment=segment, clip=clip)
    assert answer(f"{local.url}{kind}/{filled}")[0] == 404
    assert answer(f"{local.url}gradio_api/file={local.clips / 'red.mp4'}")[0] in (403, 404)


def test_the_api_searches_own_videos_on_request(local):
    client = Client(local.url, verbose=False)
    found = client.predict("a red picture", "mean", 3, True, api_name="/search")["results"]
    expected = local.library.engine().search("a red picture", "mean", 3).hits
    assert [result["id"] for result in found] == [hit.clip.id for hit in expected]
    assert "path" not in found[0]
    assert answer(local.url.rstrip("/") + found[0]["video"].partition("#")[0])[0] == 200
    corpus = client.predict("a red picture", "mean", 3, api_name="/search")["results"]
    assert corpus[0]["video"] == f"/clip/corpus/{corpus[0]['id']}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "video/mp4"),
        ("a.MKV", "video/matroska"),
        ("a.html", None),
        ("a.svg", None),
        ("a", None),
        ("a.js", None),
    ],
)
def test_files_without_a_video_suffix_have_no_displayable_type(tmp_path, name, kind):
    assert content_type(tmp_path / name) == (kind or "application/octet-stream")


def test_an_index_as_the_corpus(local, tiny_folder):
    with running(corpus=local.library.location, encoder=f"local-dir:{tiny_folder}") as app:
        found = Client(app.url, verbose=False).predict("a red picture", "mean", 3, api_name="/search")["results"]
        assert {result["id"] for result in found} <= set(local.library.engine().embeddings.ids)
        assert answer(app.url.rstrip("/") + found[0]["video"].partition("#")[0], Range="bytes=0-9")[0] == 206
        main = app.sources.main
        assert (app.sources.libraries.find(None), app.sources.has_corpus) == (main, False)
        main.remove([str(local.clips / "red.mp4")])
        assert len(app.sources.engine().corpus) == 4
        main.add([str(local.clips / "red.mp4")], "1s")
        wait_for(lambda: not main.runs.running)
        assert len(app.sources.engine().corpus) == 6


# The hosted page


def test_each_visitor_has_a_separate_library(tab, visitors, uploads):
    assert "Done: 2 videos added" in add(tab, uploads[:2])[0]
    assert "Done: 1 video added" in add(tab, uploads[2:], "other")[0]
    mine, other = visitors.find("me"), visitors.find("other")
    assert {clip.path.name for clip in mine.engine().corpus} == {"blue.mp4", "green.mp4"}
    assert {clip.path.name for clip in other.engine().corpus} == {"red.mp4"}
    [segment] = other.engine().embeddings.ids
    assert visitors.by_token(other.token).file(segment)
    assert visitors.by_token(mine.token).file(segment) is None
    assert visitors.by_token(mine.token).thumbnail(segment) is None
    assert visitors.by_token("") is visitors.by_token("me") is None
    with pytest.raises(gr.Error, match="Too many visitors"):
        add(tab, uploads, "third")


def test_opening_the_page_creates_no_library(tab, visitors):
    assert list(tab.follow(request()))[-1][2].count("No videos yet")
    assert visitors.find("me") is None
    for ask in (tab.update, tab.stop):
        with pytest.raises(gr.Error, match="no videos of yours yet"):
            show_errors(ask)(request())
    with pytest.raises(InputError, match="Open the page"):
        visitors.of(None)


def test_uploads_are_moved_and_paths_are_not_revealed(tab, uploads, visitors):
    shutil.copy(uploads[0], uploads[0] + ".mp4")
    held = add(tab, [uploads[0], uploads[0] + ".mp4"])[2]
    assert not os.path.exists(uploads[0])
    assert "1 file identical to another file" in held
    assert str(visitors.folder) not in held
    assert "blue.mp4" in held


@pytest.mark.parametrize("path", ["/etc", "/etc/passwd", "~", "."])
def test_no_folder_of_the_server_can_be_named(tab, visitors, path):
    with pytest.raises(gr.Error, match="cannot be named here"):
        add(tab, None, paths=path)
    with pytest.raises(gr.Error, match="cannot be named here"):
        show_errors(tab.remove)(path, request())
    assert visitors.find("me") is None


def test_too_many_files_are_refused_before_anything_is_read(tab, visitors, uploads):
    add(tab, uploads[:2])
    more = [shutil.copy(uploads[2], uploads[2].replace("red", f"red{n}")) for n in range(2)]
    with pytest.raises(gr.Error, match="You can add 3 videos here, and these would be 4"):
        add(tab, more)
    assert all(map(os.path.exists, more))
    assert visitors.find("me").status().videos == 2


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tab, uploads, visitors):
    with open(uploads[0], "r+b") as file:
        file.truncate(1_000_001)
    with pytest.raises(gr.Error, match=r"blue\.mp4 is larger than 1 MB"):
        add(tab, uploads)
    assert visitors.find("me").status() is None
    assert not files_below(visitors.folder / "videos")


def test_a_video_that_lasts_too_long_is_listed_with_the_reason(tab, tmp_path):
    long = [str(path) for path in sorted(write_clips(tmp_path / "long", seconds=4).iterdir())]
    held = add(tab, long[:1])[2]
    assert "It lasts 4 s, longer than the maximum of 3 s" in held


def test_leaving_deletes_all_files(tab, visitors, uploads, base):
    add(tab, uploads)
    library = visitors.find("me")
    library.analyst().landmarks("mean")
    library.analyst().map("key", library.analyst().landmarks("mean"), "linear", 2)
    assert files_below(library.location)
    tab.leave(request())
    assert visitors.find("me") is visitors.by_token(library.token) is None
    wait_for(lambda: not files_below(visitors.folder))


def test_leaving_stops_the_run(tab, visitors, tmp_path):
    long = [str(path) for path in sorted(write_clips(tmp_path / "long", seconds=2).iterdir())]
    show_errors(tab.add)("", long, "another length", 0.1, request())
    library = visitors.find("me")
    wait_for(lambda: library.runs.progress is not None)
    tab.leave(request())
    wait_for(lambda: not library.runs.running and not files_below(visitors.folder))
    with pytest.raises(InputError, match="being deleted"):
        library.add([str(tmp_path)], "whole")


def test_unused_videos_are_deleted(base, tmp_path, uploads):
    visitors = VisitorLibraries(lambda: base, Limits(idle=1), tmp_path / "visitors")
    add(VideosHandlers(visitors), uploads[:1])
    wait_for(lambda: not visitors._libraries and not files_below(visitors.folder), 20)


def test_deletion_continues_after_a_full_disk(base, tmp_path, uploads, monkeypatch):
    calls = []

    def forget_uploads(seconds):
        calls.append(seconds)
        raise StorageError("No space is left.")

    visitors = VisitorLibraries(lambda: base, Limits(idle=1), tmp_path / "visitors")
    monkeypatch.setattr(visitors.process_folder, "forget_uploads", forget_uploads)
    wait_for(lambda: calls)
    add(VideosHandlers(visitors), uploads[:1])
    wait_for(lambda: not visitors._libraries and not files_below(visitors.folder))


def test_folders_of_killed_processes_are_removed_and_those_of_living_ones_are_not(base, tmp_path, uploads):
    root = tmp_path / "visitors"
    living = VisitorLibraries(lambda: base, LIMITS, root)
    add(VideosHandlers(living), uploads[:1])
    (root / "dead" / "visitor-x").mkdir(parents=True)
    (root / "dead" / "visitor-x" / "private.mp4").touch()
    (root / "dead.lock").touch()
    VisitorLibraries(lambda: base, LIMITS, root)
    assert not (root / "dead").exists()
    assert len(living.find("me").engine().corpus) == 1
    living.close()
    assert not living.folder.exists()


def test_the_hosted_page_has_no_path_field_and_rejects_paths(hosted):
    names = {block.elem_id: block for block in hosted.blocks.blocks.values() if getattr(block, "elem_id", None)}
    assert not names["own-paths"].visible
    private = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for paths, files in (("/etc", None), ("", [private]), ("", private), ("", "/etc/passwd"), ("", ["/etc/passwd"])):
        well, output = called(hosted, "add", [paths, files, *CUT], "intruder")
        assert not well
        assert "Traceback" not in output["error"]
    assert hosted.sources.libraries.find("intruder") is None


def test_an_upload_above_the_limit_is_rejected(hosted):
    limit = hosted.sources.libraries.limits.megabytes * 1_000_000
    assert hosted.blocks.max_file_size == limit
    hosted.blocks.max_file_size = 1000
    try:
        sent = httpx.post(f"{hosted.url}gradio_api/upload", files={"files": ("a.mp4", bytes(1001))})
    finally:
        hosted.blocks.max_file_size = limit
    assert sent.status_code == 413


def test_an_upload_is_visible_only_to_its_visitor(hosted, tmp_path):
    libraries, clips = hosted.sources.libraries, write_clips(tmp_path / "clips")
    for session, name in (("mine", "red.mp4"), ("other", "blue.mp4")):
        well, output = called(hosted, "add", ["", [uploaded(hosted, clips / name)], *CUT], session)
        assert well, output
        wait_for(lambda session=session: not libraries.find(session).runs.running)
    mine, other = libraries.find("mine"), libraries.find("other")
    [segment] = mine.engine().embeddings.ids
    address = f"{hosted.url}clip/{{}}/{segment}"
    assert answer(address.format(mine.token))[0] == 200
    assert answer(address.format(other.token))[0] == 404
    assert answer(f"{hosted.url}gradio_api/file={mine.file(segment)}")[0] in (403, 404)
    with pytest.raises(AppError, match="Open the page"):
        Client(hosted.url, verbose=False).predict("a red picture", "mean", 3, True, api_name="/search")
    libraries.leave("mine")
    assert answer(address.format(mine.token))[0] == 404

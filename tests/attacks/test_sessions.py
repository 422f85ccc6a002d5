"""Other visitors' videos: only the visitor who added a video can access it."""

import re

import pytest

from tests.attacks.asking import call_api, event, send, sentence
from tests.attacks.attack import attack
from tests.attacks.test_paths import CUT, NOT_FOUND, ONLY_UPLOADS
from tests.helpers.own_videos import answer, uploaded, wait_for, write_clips


def number_of(app, handler):
    """The number of the page's event that calls a handler, given as CLASS.METHOD."""
    return next(number for number, fn in app.blocks.fns.items() if getattr(fn.fn, "__qualname__", "") == handler)


@pytest.fixture
def segment(victim):
    """The id of the victim's video."""
    [segment] = victim[1].engine().embeddings.ids
    return segment


@attack(
    "`/clip`, `/thumbnail`", "another visitor's segment below one's own token, no token, a guessed one, `corpus`", "404"
)
def test_segments_of_others(hosted, victim, segment):
    token = victim[1].token
    assert send(hosted.url, f"/clip/{token}/{segment}").status == 200
    assert len(token) >= 22  # characters of 6 bits, from the system's source of secrets
    mine = hosted.sources.libraries.of("mine")
    for other in (mine.token, "corpus", "None", token[:-1], token.swapcase(), token + "x", "victim", "%20" + token):
        for route in ("clip", "thumbnail"):
            assert send(hosted.url, f"/{route}/{other}/{segment}").sentence == NOT_FOUND
    hosted.sources.libraries.leave("mine")


@attack("`/clip`", "an added video that was replaced by a link to a text, a device, a folder", "404")
def test_a_clip_that_becomes_a_link(hosted, victim, segment):
    library = victim[1]
    target, file = f"/clip/{library.token}/{segment}", library.file(segment)
    content = file.read_bytes()
    assert send(hosted.url, target).body == content
    try:
        for elsewhere in ("/etc/passwd", "/dev/zero", "/etc", "nowhere"):
            file.unlink()
            file.symlink_to(elsewhere)
            assert (send(hosted.url, target).status, send(hosted.url, target).sentence) == (404, NOT_FOUND)
    finally:
        file.unlink()
        file.write_bytes(content)


@attack(
    "the page's state", "another visitor's token as the source of the search", "the session's own source is searched"
)
def test_a_token_of_another_as_state(hosted, victim, segment):
    token, show = victim[1].token, number_of(hosted, "SearchHandlers.show")
    assert [block.get_block_name() for block in hosted.blocks.fns[show].inputs][-1] == "state"
    for forged in (token, {"__type__": "update", "value": token}, [token]):
        well, outputs = event(hosted.url, show, ["red", "mean", 3, forged], "intruder")
        assert well, outputs
        assert token not in str(outputs)
        assert segment not in str(outputs)
        assert str(outputs).count("/clip/corpus/") >= 3


@attack("the choice of the source", "`own` in a session without videos", "an error message")
def test_own_videos_of_nobody(hosted, victim):
    for session in ("intruder", "victim ", "VICTIM", "../victim", "victim/../victim"):
        well, said = event(hosted.url, number_of(hosted, "SearchHandlers.choose"), ["own"], session)
        assert not well, session
        assert "There are no videos of yours yet" in said


@attack("the upload field", "the path of another visitor's file", "rejected; the file is not moved")
def test_files_of_others_as_uploads(hosted, victim, segment):
    kept = victim[1].file(segment)
    for path in (kept, kept.parent / ".." / "videos" / kept.name, victim[1].location):
        sent = [{"path": str(path), "meta": {"_type": "gradio.FileData"}, "orig_name": "mine.mp4"}]
        well, said = event(hosted.url, number_of(hosted, "VideosHandlers.add"), ["", sent, *CUT], "intruder")
        assert not well
        assert said == ONLY_UPLOADS
    assert kept.is_file()


@attack("the API", "`own=True`, and the victim's session in the body of a call", "an error message")
def test_own_videos_through_the_api(hosted, victim, segment):
    for endpoint, *values in (("search", "red", "mean", 3, True), ("corpus", 0, 9, True)):
        well, said = call_api(hosted.url, endpoint, *values)
        assert not well
        assert said == "Open the page in a browser to add videos of your own."
    body = {"data": ["red", "mean", 3, True], "session_hash": victim[0]}
    sent = send(hosted.url, "/gradio_api/call/search", "POST", body)
    heard = send(hosted.url, f"/gradio_api/queue/data?session_hash={victim[0]}").body.decode()
    assert sent.status == 200
    assert "Open the page in a browser" in heard
    assert segment not in heard


@attack("session names", "paths, lists, objects, numbers, null", "rejected, or treated as an ordinary name")
def test_invalid_session_names(hosted, tmp_path):
    libraries, add = hosted.sources.libraries, number_of(hosted, "VideosHandlers.add")
    for session in (["a"], {"a": 1}, 5, None, ""):
        well, said = event(hosted.url, add, ["", None, *CUT], session)
        assert not well
        assert sentence(said)
    clip = write_clips(tmp_path / "clips") / "blue.mp4"
    name = "../../../outside"
    well, outputs = event(hosted.url, add, ["", [uploaded(hosted, clip)], *CUT], name)
    assert well, outputs
    assert libraries.find(name).location.startswith(f"{libraries.folder}/visitor-")
    libraries.leave(name)
    wait_for(lambda: libraries.find(name) is None)
    heard = send(hosted.url, f"/gradio_api/heartbeat/{'..%2f' * 3}x")
    assert (heard.status, heard.sentence) == (404, NOT_FOUND)


@attack("other sessions' events", "reading and cancelling them by guessed names", "not found; no effect")
def test_events_of_others(hosted, victim):
    for target in ("queue/data?session_hash=guess", "call/search/guess", "call/v2/search/guess"):
        assert "404: Not Found" in send(hosted.url, f"/gradio_api/{target}").body.decode()
    body = {"session_hash": "guess", "fn_index": 1, "event_id": "guess"}
    assert send(hosted.url, "/gradio_api/cancel", "POST", body).status == 200
    for name in ("VideosHandlers.stop", "VideosHandlers.leave"):
        event(hosted.url, number_of(hosted, name), [], "guess")
    assert victim[1] is hosted.sources.libraries.find("victim")
    assert victim[1].status().videos == 1


@attack(
    "the page",
    "information about the machine in the page, its configuration and the API description",
    "no path, no token",
)
def test_the_page_reveals_nothing_about_the_machine(hosted, victim):
    for target in ("", "config", "gradio_api/info", "gradio_api/openapi.json", "gradio_api/mcp/schema"):
        status, _, body = answer(f"{hosted.url}{target}")
        text = body.decode()
        assert status == 200
        assert not re.search(r"/tmp/|/root|/usr/|site-packages", text), target
        assert victim[1].token not in text
    well, outputs = event(hosted.url, number_of(hosted, "VideosHandlers.follow"), [], victim[0])
    assert well
    assert "1 video" in str(outputs)
    assert str(hosted.sources.libraries.folder) not in str(outputs)

"""HTML, scripts, formulas and control characters in captions, names and queries: shown as text everywhere."""

import csv
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from gradio.utils import get_upload_folder
from playwright.sync_api import expect

from dits.cli.parser import main
from tests.attacks.asking import call_api, event, sentence
from tests.attacks.attack import attack
from tests.attacks.conftest import MARKUP
from tests.attacks.test_paths import CUT
from tests.attacks.test_sessions import number_of


@pytest.fixture
def page(browser, hosted):
    """The page in a real browser, on a corpus of markup; fails if a script ran, or contacted another address."""
    page, requested = browser.new_page(), []
    page.on("request", lambda request: requested.append(request.url))
    page.on("dialog", lambda dialog: requested.append(f"dialog {dialog.message}"))
    page.goto(hosted.url)
    expect(page.locator(".card")).to_have_count(6)
    yield page
    assert page.evaluate("() => window.hit") is None
    assert page.locator("img[src=x]").count() == 0
    page.close()
    assert [url for url in requested if not url.startswith((hosted.url, "data:", "blob:"))] == []
    assert [url for url in requested if url.endswith("/x")] == []


@attack(
    "the page, in a real browser",
    "markup as captions and ids of clips, in cards, the larger view and the comparison",
    "shown as text",
)
def test_markup_in_captions_and_ids(page):
    card = page.locator(".card").first
    expect(card).to_contain_text(MARKUP)
    card.click()
    expect(page.locator("dialog[open]")).to_contain_text(MARKUP)
    page.keyboard.press("Escape")


@attack(
    "the page, in a real browser",
    "markup as a query, and in every parameter of a link",
    "shown as text, or ignored",
)
def test_markup_in_queries_and_links(page, hosted):
    page.get_by_label("What should the clip show?").fill(MARKUP)
    page.keyboard.press("Enter")
    expect(page.locator(".results h2")).to_contain_text("<script>window.hit=2</script>")
    sent = quote(MARKUP)
    page.goto(f"{hosted.url}?q={sent}&method={sent}&top={sent}&in={sent}&tab={sent}&{sent}={sent}")
    expect(page.locator("#link-notice")).to_contain_text("was ignored")
    expect(page.locator(".results h2")).to_contain_text("<script>window.hit=2</script>")


@attack("a hosted page, in a real browser", "markup as the name of an upload that cannot be read", "shown as text")
def test_markup_in_names_of_uploads(page, hosted):
    """Gradio removes some characters from names; therefore a second file is not uploaded through Gradio."""
    name = '<img src=x onerror="window.hit=3">.mp4'
    page.get_by_role("tab", name="Your videos").click()
    page.locator("#own-files input[type=file]").set_input_files(
        {"name": name, "mimeType": "video/mp4", "buffer": b"no video"}
    )
    expect(page.locator("#own-files")).to_contain_text("onerror")
    there = Path(get_upload_folder(), "elsewhere", name)
    there.parent.mkdir(parents=True)
    there.write_bytes(b"no video")
    sent = {"path": str(there), "meta": {"_type": "gradio.FileData"}}
    assert event(hosted.url, number_of(hosted, "VideosHandlers.add"), ["", [sent], *CUT], "marked")[0]
    _, outputs = event(hosted.url, number_of(hosted, "VideosHandlers.follow"), [], "marked")
    [held] = [shown for shown in outputs if isinstance(shown, str) and "could not be read" in shown]
    page.locator("#own-held").evaluate("(element, html) => { element.innerHTML = html; }", held)
    expect(page.locator("#own-held")).to_contain_text(name)
    hosted.sources.libraries.leave("marked")


@attack("events and the API", "markup as method, split, id and segmentation, in error messages", "escaped")
def test_markup_in_error_messages(hosted):
    for endpoint, *values in (
        ("search", "x", MARKUP, 1, False),
        ("trajectory", "x", MARKUP, None, None, None, 1, False),
        ("gap", MARKUP, "mean", "mean"),
        ("evaluate", [{"video_id": MARKUP, "caption": "x"}], "mean", "all", False),
        ("embed", ["x"], MARKUP),
    ):
        well, said = call_api(hosted.url, endpoint, *values)
        assert not well
        assert "<" not in sentence(said), endpoint
        assert "&lt;" in said or "img" not in said
    well, said = event(hosted.url, number_of(hosted, "VideosHandlers.add"), ["", None, MARKUP, 1], "intruder")
    assert not well
    assert "<" not in sentence(said)


@attack(
    "exported reports and figures",
    "markup and formulas as captions",
    "text on the page; prefixed by an apostrophe in CSV cells",
)
def test_markup_and_formulas_in_exports(browser, hostile_corpus, tiny_folder, tmp_path):
    words = ["--corpus", str(hostile_corpus), "--encoder", f"local-dir:{tiny_folder}", "--out", str(tmp_path)]
    assert main(["analyse", "--method", "mean", "--split", "all", "--resamples", "0", "--paths", "2", *words]) == 0
    cells = [cell for path in (tmp_path / "figures").glob("*.csv") for row in _rows(path) for cell in row]
    assert [cell for cell in cells if cell.startswith("'=HYPERLINK")]
    assert not [cell for cell in cells if re.match(r"[=@\t\r\n]|[+-](?![0-9.])", cell)]
    page = browser.new_page()
    for path in (tmp_path / "report.html", min((tmp_path / "figures").glob("map*.html"))):
        page.goto(path.as_uri())
        page.wait_for_function("() => document.querySelector('.js-plotly-plot .main-svg')")
        assert page.evaluate("() => window.hit") is None
        assert page.locator("img[src=x]").count() == 0
    page.close()


def _rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@attack("the command line", "terminal control characters in captions, ids and names", "escaped")
def test_control_characters_on_a_terminal(tiny_corpus, tiny_folder, tmp_path, capsys):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u2028"
    for number in range(2):
        shutil.copy(tiny_corpus / f"clip{number}.mp4", tmp_path / f"{number}{evil}.mp4")
    rows = "".join(f"{number}{evil},g{number},test,words {evil} {number}\n" for number in range(2))
    (tmp_path / "captions.csv").write_text(f"clip,group,split,caption\n{rows}", newline="")
    words = ["--corpus", str(tmp_path), "--encoder", f"local-dir:{tiny_folder}"]
    assert main(["search", "words", "--method", "mean", *words]) == 0
    shown = capsys.readouterr()
    assert main(["evaluate", "--split", evil, *words]) == 2
    assert main(["search", evil, "--method", "mean", "--corpus", evil]) == 2
    said = capsys.readouterr()
    assert "owned" in shown.out
    assert "owned" in said.err
    for text in (shown.out, shown.err, said.out, said.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028]", text.replace("\r", ""))

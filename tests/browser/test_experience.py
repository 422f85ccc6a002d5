"""The page for a new visitor: the first screen, links, empty and failing states, and the reported results."""

import csv
import json
import statistics
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import empty_page, visit
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.browser

# Records layout shifts without recent input; see web.dev/cls.
SHIFTS = """
  window.moved = [];
  new PerformanceObserver((list) => {
    for (const { value, hadRecentInput, sources } of list.getEntries()) {
      if (!hadRecentInput) moved.push([value, ...sources.map(({ node }) => node?.id || node?.className || "?")]);
    }
  }).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize(
    ("width", "height"),
    [(390, 844), (1280, 720), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((820, 1180), (1440, 900)))],
)
def test_clips_play_in_the_first_sight_and_nothing_jumps(browser, app_url, width, height):
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(SHIFTS)
    page = context.new_page()
    page.goto(app_url)
    expect(page.locator(".card")).to_have_count(8)
    video = page.locator(".card video").first
    expect(video).to_have_js_property("paused", False)
    page.wait_for_function("video => video.readyState >= 2", arg=video.element_handle())
    assert page.evaluate("scrollY") == 0
    box = video.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] * (1 if width > 390 else 0.5) <= height  # on a telephone, half of it at least
    moved = page.evaluate("moved")
    context.close()
    assert sum(value for value, *_ in moved) < 0.1, moved


def test_methods_can_be_compared_in_the_first_sight(browser, app_url):
    with visit(browser, app_url) as page:
        for column in page.locator(".comparison .columns > div").all():
            box = column.bounding_box()
            assert box["y"] + box["height"] <= 720
        expect(page.locator(".results .verdict")).to_be_in_viewport(ratio=1)


# Links


@contextmanager
def opened(browser, app_url, cards=8, **parameters):
    with visit(browser, f"{app_url}?{urlencode(parameters)}", cards) as page:
        yield page


def test_a_link_reproduces_a_search(browser, app_url, engine):
    with opened(browser, app_url, 4, q="a white horse", method="mean", top=4) as page:
        expect(page.locator(".results h2")).to_have_text("4 results for a white horse, ranked by Mean pooling")
        expected = [hit.clip.id for hit in engine.search("a white horse", "mean", 4).hits]
        assert page.locator(".card").evaluate_all("cards => cards.map((card) => card.dataset.id)") == expected
        expect(page.get_by_label("What should the clip show?")).to_have_value("a white horse")
        expect(page.get_by_role("radio", name="Mean pooling")).to_be_checked()
        expect(page.get_by_label("number input for Results")).to_have_value("4")
        assert parameters(page) == {"q": ["a white horse"], "method": ["mean"], "top": ["4"]}


def test_the_address_says_what_is_shown(browser, app_url):
    with visit(browser, app_url) as page:
        page.get_by_label("What should the clip show?").fill('50% & "more" + #1 ?')
        page.keyboard.press("Enter")
        expect(page.locator(".results h2 q")).to_have_text('50% & "more" + #1 ?')
        page.get_by_role("radio", name="X-Pool").check()
        expect(page.locator(".results h2")).to_contain_text("ranked by X-Pool")
        page.wait_for_function("() => location.search.includes('xpool')")
        shown = captions(page)
        assert parameters(page) == {"q": ['50% & "more" + #1 ?'], "method": ["xpool"]}
        page.reload()
        expect(page.locator(".results h2 q")).to_have_text('50% & "more" + #1 ?')
        assert captions(page) == shown


def test_a_link_reproduces_a_trajectory(browser, app_url):
    link = {"tab": "trajectory", "q": "a white horse", "method": "dits-l2", "steps": 5}
    with opened(browser, app_url, **link) as page:
        expect(page.get_by_role("tab", name="Trajectory")).to_have_attribute("aria-selected", "true")
        expect(page.locator("#trajectory-numbers")).to_contain_text("After 5 steps, the query has moved by")
        expect(page.locator("#trajectory-query textarea")).to_have_value("a white horse")
        expect(page.locator("#trajectory-method input")).to_have_value("DITS, l2")
        expect(page.locator("#trajectory-numbers thead th")).to_have_text(["step", "t", "1", "2", "3", "4", "v₀"])
        page.wait_for_function("() => location.search.includes('steps')")
        assert parameters(page) == {name: [str(value)] for name, value in link.items()}


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (
            {"method": "best", "top": "900", "q": " ", "in": "own"},
            [
                "'method' was ignored: it must be one of dits, xpool, mean",
                "a whole number from 1 to 24",
                "'q' was ignored: it must be a sentence",
                "someone's own videos, and links do not contain videos",
            ],
        ),
        ({"tab": "<b>nowhere</b>"}, ["'tab' was ignored: it must be one of search, own, trajectory, gap, about"]),
        ({"tab": "trajectory", "method": "none"}, ["'method' was ignored: this page does not have it"]),
    ],
)
def test_a_wrong_link_is_answered_with_a_sentence(browser, app_url, link, said):
    with opened(browser, app_url, **link) as page:
        for sentence in said:
            expect(page.locator("#link-notice .notice", has_text=sentence)).to_be_visible()
        assert page.locator("#link-notice b").count() == 0


# What is empty, and what fails


def test_what_is_empty_or_wrong_says_what_to_do(browser, app_url):
    with visit(browser, app_url) as page:
        page.get_by_label("What should the clip show?").fill("  ")
        page.keyboard.press("Enter")
        expect(page.get_by_text("describe in a sentence what the video shows")).to_be_visible()
        assert page.locator(".card").count() == 8  # what was there stays
        page.get_by_role("tab", name="Your videos").click()
        expect(page.locator("#own-held")).to_have_text("No videos yet. Choose some above and press Add.")
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_text("Nothing to add: give the path of a folder or of a file")).to_be_visible()


def test_a_lost_connection_is_said_until_it_is_back(browser, app_url):
    page = empty_page(browser)
    page.goto(app_url)
    expect(page.locator(".card")).to_have_count(8)
    lost = page.get_by_role("alert").filter(has_text="The server does not answer")
    page.context.set_offline(True)
    try:
        page.get_by_role("button", name="people playing chess").click()
        expect(lost).to_be_visible()
        expect(lost).to_contain_text("check the connection and reload the page")
    finally:
        page.context.set_offline(False)
    page.reload()
    expect(page.locator(".card")).to_have_count(8)
    expect(lost).to_be_hidden()
    page.goto("about:blank")


# About


def test_about_shows_the_numbers_of_the_reports(browser, app_url):
    reports = REPOSITORY / "reports"
    with opened(browser, app_url, tab="about") as page:
        about = page.get_by_role("article")
        expect(about).to_be_visible()
        shipped, seeds = (
            {row[0]: row[1:] for row in table.locator("tbody tr").evaluate_all(ROWS)}
            for table in about.locator("table").all()
        )
    for title, folder in (("DITS", "dits"), ("DITS trained by L2", "dits-l2")):
        steps = json.loads((reports / "gap" / folder / "analysis.json").read_text())["steps"]
        for name, step in (("text t, ranked by X-Pool", steps[0]), (f"v₀ of {title}", steps[-1])):
            cells = shipped[name]
            if step is steps[0] and folder != "dits":
                continue  # the table has it for the first method only
            assert cells[0] == f"{step['t2v']['R@1']:.1f}"
            assert cells[1].startswith(f"{step['cosine']:.3f}")
            assert cells[2].startswith(f"{step['centroid_distance']:.3f}")
    with (reports / "ablation" / "results.csv").open() as file:
        runs = [row for row in csv.DictReader(file) if row["table"] == "Methods"]
    assert list(seeds) == list(dict.fromkeys(row["row"] for row in runs))
    for method, cells in seeds.items():
        for column, cell in zip(("R@1", "R@5", "R@10", "v2t R@1"), cells, strict=True):
            values = [float(row[column]) for row in runs if row["row"] == method]
            assert float(cell.split(" ± ")[0]) == pytest.approx(statistics.mean(values), abs=0.051)


ROWS = "rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"


def parameters(page):
    return parse_qs(urlsplit(page.url).query)


def captions(page):
    return page.locator(".card .about").all_text_contents()

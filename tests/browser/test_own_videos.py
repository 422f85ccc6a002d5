"""Own videos in a real headless Chromium: they are added, searched, played, and deleted when the visitor leaves."""

import os
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import visit
from tests.helpers.own_videos import running, wait_for, write_clips
from tests.helpers.videos import write_video

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def arguments(tiny_corpus, tiny_folder):
    return {"corpus": str(tiny_corpus), "encoder": f"local-dir:{tiny_folder}"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three videos of four seconds, one that browsers do not play, and one that is none."""
    folder = write_clips(tmp_path_factory.mktemp("clips") / "videos", seconds=4)
    write_video(folder / "old.avi", [np.full((48, 64, 3), 99, np.uint8)] * 20, size=(64, 48), fps=5, codec="mpeg4")
    (folder / "<b>broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def app(arguments, tmp_path_factory):
    with running(**arguments, index=str(tmp_path_factory.mktemp("own") / "index")) as app:
        yield app


@pytest.fixture(scope="module")
def page(browser, app, clips):
    """A page on which the videos were added, in parts of two seconds, and are searched."""
    with visit(browser, app.url, viewport={"width": 1280, "height": 900}) as page:
        expect(page.get_by_role("radio", name="Your videos")).to_have_count(0)
        page.get_by_role("tab", name="Your videos").click()
        expect(page.locator("#own-held")).to_contain_text("No videos yet")
        page.get_by_role("radio", name="another length").click()
        page.get_by_label("Seconds", exact=True).fill("2")
        box = page.get_by_label("Folders or files")
        for _ in range(20):  # Gradio sets a box's first value a moment after its tab was opened, over what was typed
            box.fill(str(clips))
            page.wait_for_timeout(500)
            if box.input_value() == str(clips):
                break
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(page.locator("#own-running")).to_contain_text("Done: 4 videos added")
        page.get_by_role("button", name="Search them").click()
        expect(page.locator("#results .card video[poster]")).to_have_count(8)
        yield page


def search_tab(page):
    page.get_by_role("tab", name="Search", exact=True).click()


def card(page, title):
    return page.locator(".card", has_text=title).first


def test_what_was_added_is_listed(page):
    page.get_by_role("tab", name="Your videos").click()
    held = page.locator("#own-held")
    expect(held).to_contain_text("4 videos in 8 segments can be searched")
    expect(held).to_contain_text("<b>broken.mp4")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.get_by_label("Folders or files")).to_have_value("")


def test_a_part_plays_over_and_over(page):
    search_tab(page)
    video = card(page, "red.mp4, 0:02 to 0:04").locator("video").first
    video.scroll_into_view_if_needed()
    times = video.evaluate(
        """async (video) => {
          const times = [];
          for (let k = 0; k < 60; k += 1) {
            times.push(video.currentTime);
            await new Promise((resolve) => setTimeout(resolve, 100));
          }
          return times;
        }"""
    )
    assert min(times) >= 1.95
    assert max(times) <= 4.05
    assert sum(later < earlier for earlier, later in pairwise(times)) >= 2  # it began again
    early = card(page, "red.mp4, 0:00 to 0:02").locator("video").first
    assert early.evaluate("video => video.currentTime") <= 2.4
    expect(early).to_have_js_property("paused", False)


def test_the_larger_view_opens_at_the_best_moment(page):
    search_tab(page)
    button = card(page, "green.mp4, 0:02 to 0:04").locator("button.open")
    moment = float(button.get_attribute("data-moment"))
    assert 2 <= moment <= 4
    pause = page.locator("#results button.pause")
    pause.click()  # a playing clip would begin its part anew before a slow machine looks
    button.click()
    video = page.locator("dialog.viewer video")
    page.wait_for_function("v => v.readyState >= 2 && !v.seeking", arg=video.element_handle())
    seconds = video.evaluate("v => v.currentTime")
    page.keyboard.press("Escape")
    pause.click()
    assert seconds == pytest.approx(moment, abs=0.2)


def test_what_the_browser_does_not_play_shows_its_picture_and_says_so(page):
    search_tab(page)
    old = card(page, "old.avi")
    old.scroll_into_view_if_needed()
    expect(old.locator(".unplayed")).to_be_visible()
    expect(card(page, "red.mp4").locator(".unplayed").first).to_be_hidden()
    picture = old.locator("video").get_attribute("poster")
    assert page.evaluate("async (url) => (await createImageBitmap(await (await fetch(url)).blob())).width", picture) > 0


def test_the_other_tabs_follow_what_is_searched(page):
    page.get_by_role("tab", name="Trajectory").click()
    expect(page.locator("#trajectory-numbers")).to_contain_text("Your videos have no captions")
    expect(page.locator("#trajectory-figures .panel:has(.js-plotly-plot)")).to_have_count(1)
    page.get_by_role("tab", name="Modality gap").click()
    expect(page.locator("#gap-numbers")).to_contain_text("measured on pairs of a caption and its video")
    search_tab(page)
    page.get_by_role("radio", name="The corpus").click()
    expect(page.locator("#results .card video[poster]")).to_have_count(0)
    page.get_by_role("tab", name="Modality gap").click()
    expect(page.locator("#gap-numbers table")).to_have_count(1)
    search_tab(page)
    page.get_by_role("radio", name="Your videos").click()
    expect(page.locator("#results .card video[poster]")).to_have_count(8)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tab_fits_a_phone(browser, app, page, scheme):
    with visit(browser, app.url, viewport={"width": 390, "height": 844}, color_scheme=scheme) as phone:
        phone.get_by_role("tab", name="Your videos").click()
        expect(phone.locator("#own-held")).to_contain_text("can be searched")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        for button in phone.locator("#own-add, #own-search, #own-remove, #own-update").all():
            box = button.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390


@pytest.mark.slow
def test_a_visitors_videos_go_when_the_page_does(browser, arguments, clips):
    with running(**arguments, hosted=True) as app:
        visitors = app.sources.libraries
        with visit(browser, app.url) as page:
            page.get_by_role("tab", name="Your videos").click()
            expect(page.locator("#own-paths")).to_have_count(0)
            page.locator("#own-files input[type=file]").set_input_files([clips / "red.mp4", clips / "blue.mp4"])
            expect(page.locator("#own-files")).to_contain_text("blue")
            page.get_by_role("button", name="Add", exact=True).click()
            expect(page.locator("#own-running")).to_contain_text("Done: 2 videos added")
            page.get_by_role("button", name="Search them").click()
            expect(page.locator("#results .card video[poster]")).to_have_count(2)
            with visit(browser, app.url) as stranger:
                stranger.get_by_role("tab", name="Your videos").click()
                expect(stranger.locator("#own-held")).to_contain_text("No videos yet")
            assert len(visitors._libraries) == 1
        wait_for(lambda: not visitors._libraries and bytes_below(visitors.folder) == 0, 60)


def bytes_below(folder):
    """Of all files: Gradio leaves empty ones where it named uploads."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)

"""The page in a real headless Chromium, as a visitor uses it."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import visit

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser, app_url):
    with visit(browser, app_url, viewport={"width": 1280, "height": 900}) as page:
        yield page


def search(page, text):
    page.get_by_label("What should the clip show?").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".results h2 q")).to_have_text(text)


def captions(page):
    return page.locator(".card .about").all_inner_texts()


def test_typing_a_query_plays_matching_clips(page):
    search(page, "a dragon in the clouds")
    assert any("dragon" in caption.lower() for caption in captions(page)[:5])
    video = page.locator(".card video").first
    expect(video).to_have_js_property("paused", False)
    start = video.evaluate("video => video.currentTime")
    page.wait_for_function("([v, t]) => v.currentTime !== t && v.readyState >= 2", arg=[video.element_handle(), start])
    assert video.evaluate("video => video.muted && video.loop && !video.error")


def test_the_status_line_names_what_it_runs_on(page, engine):
    status = page.locator("#status").inner_text()
    assert engine.encoder.id in status
    assert engine.methods["dits"].weights_sha256[:8] in status
    assert f"{engine.methods['dits'].model.config.sampler.steps} steps" in status
    assert "12 frames" in status


def test_switching_the_method_reranks(page, engine):
    text = "a cat and a boy walking on a path"
    search(page, text)
    for label, method in (("Mean pooling", "mean"), ("X-Pool", "xpool"), ("DITS", "dits")):
        page.get_by_role("radio", name=label).click()
        expect(page.locator(".results h2")).to_contain_text(f"ranked by {label}")
        expected = [hit.clip.captions[0] for hit in engine.search(text, method, 8).hits]
        assert captions(page) == expected
    assert page.locator(".comparison .columns > div").count() == 3


def test_a_picked_clip_opens_larger_at_its_best_moment(page):
    search(page, "someone plays the guitar")
    button = page.locator(".card button.open").first
    moment = float(button.get_attribute("data-moment"))
    button.click()
    viewer = page.locator("dialog.viewer")
    expect(viewer).to_be_visible()
    video = viewer.locator("video")
    page.wait_for_function("v => v.readyState >= 2", arg=video.element_handle())
    assert video.evaluate("v => v.played.length ? v.played.start(0) : v.currentTime") == pytest.approx(moment, abs=0.2)
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()


def test_the_keyboard_is_enough(page):
    page.get_by_label("What should the clip show?").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("a white horse")
    page.keyboard.press("Enter")
    expect(page.locator(".results h2 q")).to_have_text("a white horse")
    page.locator(".card button.open").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog.viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog.viewer")).to_be_hidden()


def test_an_example_searches(page):
    page.get_by_role("button", name="people playing chess").click()
    expect(page.locator(".results h2 q")).to_have_text("people playing chess")


def test_markup_in_a_query_is_shown_as_text(page):
    text = '<img src=x onerror="document.title=1"> & "quotes" 🐶'
    search(page, text)
    assert page.locator(".results h2 img").count() == 0


def test_an_empty_query_is_answered_with_a_sentence(page):
    page.get_by_label("What should the clip show?").fill("   ")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The query is empty")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(browser, app_url, scheme):
    with visit(browser, app_url, viewport={"width": 390, "height": 844}, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for card in page.locator(".card").all()[:3]:
            assert card.bounding_box()["width"] > 150
        ink, paper = (
            page.locator(".card").first.evaluate(f"card => getComputedStyle(card).{name}")
            for name in ("color", "backgroundColor")
        )
        assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
        assert abs(brightness(ink) - brightness(paper)) > 120


def brightness(colour):
    """From 0 to 255, of a CSS colour."""
    return sum(float(number) for number in re.findall(r"[\d.]+", colour)[:3]) / 3


def test_all_clips_can_be_paused(page):
    button = page.get_by_role("button", name="Pause clips")
    video = page.locator(".card video").first
    expect(video).to_have_js_property("paused", False)
    button.click()
    expect(video).to_have_js_property("paused", True)
    page.get_by_role("button", name="Play clips").click()
    expect(video).to_have_js_property("paused", False)


def test_a_visitor_who_wants_no_motion_gets_still_clips(browser, app_url):
    with visit(browser, app_url, reduced_motion="reduce") as page:
        video = page.locator(".card video").first
        page.wait_for_function("video => video.readyState >= 1", arg=video.element_handle())
        expect(video).to_have_js_property("paused", True)

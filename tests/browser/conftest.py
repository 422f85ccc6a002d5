"""A real headless Chromium, and pages in it that must not complain."""

import os
import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP = {"width": 1280, "height": 720}
EMPTY = "about:blank"
WAIT = 120_000  # ms that a page may take on a busy machine
expect.set_options(timeout=WAIT)


@pytest.fixture(scope="package")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("DITS_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: install Debian's package chromium")
        pytest.skip("no Chromium found: install one, or set DITS_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visit(browser, app_url, cards=8, viewport=DESKTOP, color_scheme="light", reduced_motion="no-preference"):
    """A page on the app; fails on any console error or uncaught exception, and when it asks another host."""
    page = empty_page(browser)
    page.set_viewport_size(viewport)
    page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
    page.mouse.move(0, 0)
    problems = []
    listeners = {
        "console": lambda message: problems.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: problems.append(str(error)),
        "request": lambda request: None if local(request.url, app_url) else problems.append(request.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(app_url)
    expect(page.locator(".card")).to_have_count(cards)  # the first example's results
    expect(page.get_by_role("heading", level=1)).to_be_visible()  # the page is shown once all of its parts are there
    yield page
    page.evaluate("() => [localStorage, sessionStorage].forEach((kept) => kept.clear())")
    page.context.clear_cookies()
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    page.goto(EMPTY)
    assert problems == []


def empty_page(browser):
    """A tab that an earlier visit has left, or a new one: the app opens in it for half the work."""
    context = browser.contexts[0] if browser.contexts else browser.new_context()
    context.set_default_timeout(WAIT)
    return next((page for page in context.pages if page.url == EMPTY), None) or context.new_page()


def local(url, app_url):
    origin = app_url.partition("?")[0]
    return url.startswith((origin, origin.replace("http", "ws", 1), "data:", "blob:"))

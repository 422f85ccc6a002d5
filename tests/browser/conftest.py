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
def visit(browser, app_url, cards=8, **options):
    """A page on the app; fails on any console error or uncaught exception, and when it asks another host."""
    page = browser.new_page(**options)
    problems = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if local(request.url, app_url) else problems.append(request.url))
    page.goto(app_url)
    expect(page.locator(".card")).to_have_count(cards, timeout=60_000)  # the first example's results
    yield page
    page.close()
    assert problems == []


def local(url, app_url):
    origin = app_url.partition("?")[0]
    return url.startswith((origin, origin.replace("http", "ws", 1), "data:", "blob:"))

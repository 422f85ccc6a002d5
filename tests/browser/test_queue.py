"""A visitor who comes when more ask than can be served sees their place in the queue, and then the results."""

import asyncio
import re
import threading
from itertools import islice

import pytest
from playwright.sync_api import expect

from tests.benchmarks.load_client import Visitor, sentences
from tests.browser.conftest import visit
from ui.runtime.queue import MAX_SEARCHES

pytestmark = pytest.mark.browser

PEOPLE = 4 * MAX_SEARCHES
TIMES = 5
"""Searches of each: they go on until the visitor has seen the queue."""


async def crowd(url, gathered, seen):
    """People who search, again and again until the visitor has seen the queue."""
    visitors = [Visitor(url) for _ in range(PEOPLE)]
    event = (await visitors[0].open()).event("query", "submit", "results")
    texts = islice(sentences(), PEOPLE * TIMES)

    async def search(visitor):
        for _ in range(TIMES):
            await visitor.ask(event, {"query": next(texts)})
            gathered.set()
            if seen.is_set():
                break
        await visitor.close()

    await asyncio.gather(*map(search, visitors))


@pytest.mark.slow
def test_the_place_in_the_queue_is_shown(browser, app_url):
    gathered, seen = threading.Event(), threading.Event()
    people = threading.Thread(target=lambda: asyncio.run(crowd(app_url, gathered, seen)))
    with visit(browser, app_url) as page:
        people.start()
        try:
            assert gathered.wait(timeout=60)
            page.get_by_label("What should the clip show?").fill("a white horse")
            page.keyboard.press("Enter")
            expect(page.locator("#results").get_by_text(re.compile(r"queue: \d+/\d+"))).to_be_visible()
        finally:
            seen.set()
            people.join()
        expect(page.locator(".results h2 q")).to_have_text("a white horse")

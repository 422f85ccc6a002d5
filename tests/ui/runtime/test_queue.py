"""More people than can be served at once: each has a place in the queue, or is told that it is full; nobody hangs."""

import asyncio
from itertools import islice

from tests.benchmarks.load_client import RefusedError, Visitor, sentences
from tests.helpers.own_videos import running
from ui.runtime.queue import SEARCHES, WAITING


async def crowd(url, people):
    """Answers, or errors, of so many people who search at once."""
    visitors = [Visitor(url) for _ in range(people)]
    event = (await visitors[0].open()).event("query", "submit", "results")
    asked = zip(visitors, islice(sentences(), people), strict=True)
    try:
        searches = (visitor.ask(event, {"query": text}) for visitor, text in asked)
        return await asyncio.wait_for(asyncio.gather(*searches, return_exceptions=True), timeout=120)
    finally:
        await asyncio.gather(*(visitor.close() for visitor in visitors))


def test_a_crowd_waits_in_a_queue_and_everybody_is_answered(app_url):
    people = 2 * SEARCHES
    answers = asyncio.run(crowd(app_url, people))
    for answer, text in zip(answers, islice(sentences(), people), strict=True):
        assert f"<q>{text}</q>" in answer.data[0]
    assert max(answer.rank for answer in answers if answer.rank is not None) >= 1


def test_more_than_may_wait_are_told_so(app_url):
    answers = asyncio.run(crowd(app_url, 2 * WAITING))
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert 0 < len(refused) < WAITING
    assert {type(error) for error in refused} == {RefusedError}
    assert all("Queue is full" in str(error) for error in refused)
    assert all('class="card"' in answer.data[0] for answer in answers if answer not in refused)


def test_a_page_in_use_is_not_forgotten_for_those_who_came_after_it(tiny_corpus, monkeypatch):
    """Gradio's queue ended for good when it had something to tell to a page that it had forgotten."""
    monkeypatch.setattr("ui.server.serving.SESSIONS", 4)
    with running(corpus=str(tiny_corpus)) as app:
        asyncio.run(use_among_many(app.url, others=12))


async def use_among_many(url, others):
    page = Visitor(url)
    event = (await page.open()).event("query", "submit", "results")
    texts = sentences()
    for _ in range(others):
        assert 'class="card"' in (await page.ask(event, {"query": next(texts)})).data[0]
        assert (await Visitor(url).call("search", next(texts), "mean", 2, False))["query"]
    crowd = [Visitor(url).call("search", next(texts), "mean", 2, False) for _ in range(others)]
    answers = await asyncio.wait_for(asyncio.gather(*crowd, return_exceptions=True), timeout=60)
    assert any(isinstance(answer, dict) for answer in answers)  # whoever is forgotten hears nothing; the others do
    assert 'class="card"' in (await page.ask(event, {"query": next(texts)})).data[0]
    await page.close()

"""More searches than can run at once: each waits in the queue, or is rejected because the queue is full."""

import asyncio
from itertools import islice

import pytest

from tests.benchmarks.load_client import RefusedError, Visitor, sentences
from tests.helpers.own_videos import running
from ui.runtime.queue import MAX_SEARCHES, MAX_WAITING


async def crowd(url, people):
    """Answers, or errors, of `people` users who search at once."""
    visitors = [Visitor(url) for _ in range(people)]
    event = (await visitors[0].open()).event("query", "submit", "results")
    pairs = zip(visitors, islice(sentences(), people), strict=True)
    try:
        searches = (visitor.ask(event, {"query": text}) for visitor, text in pairs)
        return await asyncio.wait_for(asyncio.gather(*searches, return_exceptions=True), timeout=120)
    finally:
        await asyncio.gather(*(visitor.close() for visitor in visitors))


def test_all_searches_in_the_queue_are_answered(app_url):
    people = 2 * MAX_SEARCHES
    answers = asyncio.run(crowd(app_url, people))
    for answer, text in zip(answers, islice(sentences(), people), strict=True):
        assert f"<q>{text}</q>" in answer.data[0]
    assert max(answer.rank for answer in answers if answer.rank is not None) >= 1


@pytest.mark.slow
def test_searches_beyond_the_maximum_queue_are_rejected(app_url):
    answers = asyncio.run(crowd(app_url, 2 * MAX_WAITING))
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert 0 < len(refused) < MAX_WAITING
    assert {type(error) for error in refused} == {RefusedError}
    assert all("Queue is full" in str(error) for error in refused)
    assert all('class="card"' in answer.data[0] for answer in answers if answer not in refused)


@pytest.mark.slow
def test_a_session_in_use_is_not_dropped_for_newer_ones(tiny_corpus, monkeypatch):
    """Gradio's own queue stopped permanently on a message for a dropped session."""
    monkeypatch.setattr("ui.server.serving.MAX_SESSIONS", 4)
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
    assert any(isinstance(answer, dict) for answer in answers)  # dropped sessions get no answer; the others do
    assert 'class="card"' in (await page.ask(event, {"query": next(texts)})).data[0]
    await page.close()

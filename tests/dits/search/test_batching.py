"""Batches of concurrent queries: each query has the result that it has alone."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch

from dits.common.threads import CORES, compute_on
from dits.search.batching import QueryBatcher
from dits.search.engine import SearchEngine
from dits.search.query import PreparedQuery
from tests.benchmarks.load_client import sentences


class SlowSquares:
    """Squares batches of numbers once it is released; fails for some numbers, and records the batches."""

    def __init__(self, refused=(), max_batch=8):
        self.batches, self.refused = [], set(refused)
        self.begun, self.released = threading.Event(), threading.Event()
        self.batcher = QueryBatcher(self._answer, max_batch)

    def _answer(self, numbers):
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.released.wait(timeout=30)
        if self.refused & set(numbers):
            raise ValueError(sorted(self.refused & set(numbers)))
        return [number * number for number in numbers]

    def submit_concurrently(self, first, others):
        """The futures of a first query, and of other queries that arrive while it is computed."""
        pool = ThreadPoolExecutor(1 + len(others))
        futures = [pool.submit(self.batcher, first)]
        assert self.begun.wait(timeout=30)
        for waiting, number in enumerate(others, start=1):
            futures.append(pool.submit(self.batcher, number))
            while len(self.batcher._waiting) < waiting:
                wait(futures, timeout=0.001)
        self.released.set()
        return futures


def test_queries_that_arrive_during_a_batch_form_the_next_batch():
    squares = SlowSquares()
    futures = squares.submit_concurrently(2, [3, 4, 5])
    assert [future.result(timeout=30) for future in futures] == [4, 9, 16, 25]
    assert squares.batches == [[2], [3, 4, 5]]


def test_a_batch_is_not_larger_than_its_maximum():
    squares = SlowSquares(max_batch=2)
    futures = squares.submit_concurrently(0, [1, 2, 3, 4, 5])
    assert [future.result(timeout=30) for future in futures] == [0, 1, 4, 9, 16, 25]
    assert squares.batches == [[0], [1, 2], [3, 4], [5]]


def test_an_error_of_one_query_does_not_affect_the_others():
    squares = SlowSquares(refused=[4])
    futures = squares.submit_concurrently(2, [3, 4, 5])
    assert [futures[position].result(timeout=30) for position in (0, 1, 3)] == [4, 9, 25]
    with pytest.raises(ValueError, match=r"\[4\]"):
        futures[2].result(timeout=30)
    assert squares.batches == [[2], [3, 4, 5], [3], [4], [5]]


def test_the_error_of_a_single_query_is_raised_in_its_thread():
    squares = SlowSquares(refused=[7])
    squares.released.set()
    with pytest.raises(ValueError, match=r"\[7\]"):
        squares.batcher(7)
    assert squares.batcher(6) == 36


@pytest.fixture(scope="module")
def batching_engine(engine):
    """The same engine, as the app runs it."""
    return SearchEngine(engine.corpus, engine.encoder, engine.embeddings, engine.methods, batch_queries=True)


@pytest.mark.parametrize("count", [2, 5, 32])
def test_a_ranking_does_not_depend_on_the_other_queries_of_a_batch(engine, batching_engine, count):
    """To the last bit, and as it is without up to rounding: sentences of many lengths, and twice the same one."""
    texts = [text for text, _ in zip(sentences(seed=count), range(count - 1), strict=False)]
    texts.append(texts[0])
    batch = batching_engine._ranker.rank([PreparedQuery(text, None, 8) for text in texts])
    for position in range(0, count, max(1, count // 4)):
        assert batch[position] == batching_engine.search_all(texts[position], 8)
        for method, expected in engine.search_all(texts[position], 8).items():
            found, scores = batch[position][method], [hit.score for hit in expected.hits]
            assert [hit.score for hit in found.hits] == pytest.approx(scores, abs=1e-5)
            assert found.spread == pytest.approx(expected.spread, abs=1e-5)
            assert {hit.clip.id for hit in found.hits[:4]} <= {hit.clip.id for hit in expected.hits}


def test_a_text_embedding_does_not_depend_on_the_other_texts_of_a_batch(engine):
    texts = ["a dog", "two children slowly walk in the snow at night", "", "a dog", "an astronaut"]
    batch = engine.encoder.encode_each(texts)
    assert torch.equal(batch, torch.cat([engine.encoder.encode_each([text]) for text in texts]))
    torch.testing.assert_close(batch, engine.encoder.encode_text(texts), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("few", "cores"), [(10_000, 1), (10, CORES)])
def test_few_videos_are_searched_on_one_core(engine, monkeypatch, few, cores):
    """This is as fast for a single query, and leaves the other cores free."""
    monkeypatch.setattr("dits.search.engine._MAX_VIDEOS_ON_ONE_CORE", few)
    seen, encode = [], engine.encoder.encode_each
    monkeypatch.setattr(
        engine.encoder, "encode_each", lambda texts: seen.append(torch.get_num_threads()) or encode(texts)
    )
    found = SearchEngine(engine.corpus, engine.encoder, engine.embeddings, engine.methods, batch_queries=True)
    compute_on(CORES)
    found.search("a dog", "mean", 1)
    assert seen == [cores]
    assert torch.get_num_threads() == CORES


def test_many_threads_get_their_own_answers(batching_engine):
    texts = [text for text, _ in zip(sentences(seed=9), range(40), strict=False)]
    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(lambda text: batching_engine.search(text, "dits", 3), texts))
    assert [result.query for result in found] == texts
    assert found[17] == batching_engine.search(texts[17], "dits", 3)

"""Questions that wait for each other are answered together, and each as if it came alone."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch

from dits.common.threads import CORES, compute_on
from dits.search.batching import QueryBatcher
from dits.search.engine import SearchEngine
from dits.search.query import PreparedQuery
from tests.benchmarks.load_client import sentences


class Held:
    """Answers numbers with their squares, once it may; refuses some, and remembers what came together."""

    def __init__(self, refused=(), most=8):
        self.batches, self.refused = [], set(refused)
        self.begun, self.may = threading.Event(), threading.Event()
        self.ask = QueryBatcher(self._answer, most)

    def _answer(self, numbers):
        self.batches.append(list(numbers))
        self.begun.set()
        assert self.may.wait(timeout=30)
        if self.refused & set(numbers):
            raise ValueError(sorted(self.refused & set(numbers)))
        return [number * number for number in numbers]

    def asked_while_it_answers(self, first, others):
        """The future answers of a first question, and of others that come while it is answered."""
        pool = ThreadPoolExecutor(1 + len(others))
        futures = [pool.submit(self.ask, first)]
        assert self.begun.wait(timeout=30)
        for waiting, number in enumerate(others, start=1):
            futures.append(pool.submit(self.ask, number))
            while len(self.ask._waiting) < waiting:
                wait(futures, timeout=0.001)
        self.may.set()
        return futures


def test_whoever_asks_meanwhile_is_answered_at_once():
    held = Held()
    futures = held.asked_while_it_answers(2, [3, 4, 5])
    assert [future.result(timeout=30) for future in futures] == [4, 9, 16, 25]
    assert held.batches == [[2], [3, 4, 5]]


def test_no_more_than_allowed_are_answered_at_once():
    held = Held(most=2)
    futures = held.asked_while_it_answers(0, [1, 2, 3, 4, 5])
    assert [future.result(timeout=30) for future in futures] == [0, 1, 4, 9, 16, 25]
    assert held.batches == [[0], [1, 2], [3, 4], [5]]


def test_what_is_wrong_with_one_does_not_reach_the_others():
    held = Held(refused=[4])
    futures = held.asked_while_it_answers(2, [3, 4, 5])
    assert [futures[place].result(timeout=30) for place in (0, 1, 3)] == [4, 9, 25]
    with pytest.raises(ValueError, match=r"\[4\]"):
        futures[2].result(timeout=30)
    assert held.batches == [[2], [3, 4, 5], [3], [4], [5]]


def test_what_fails_alone_is_raised_where_it_was_asked():
    held = Held(refused=[7])
    held.may.set()
    with pytest.raises(ValueError, match=r"\[7\]"):
        held.ask(7)
    assert held.ask(6) == 36


@pytest.fixture(scope="module")
def together(engine):
    """The same engine, as the app runs it."""
    return SearchEngine(engine.corpus, engine.encoder, engine.embeddings, engine.methods, batch_queries=True)


@pytest.mark.parametrize("count", [2, 5, 32])
def test_a_ranking_does_not_depend_on_what_is_computed_beside_it(engine, together, count):
    """To the last bit, and as it is without up to rounding: sentences of many lengths, and twice the same one."""
    texts = [text for text, _ in zip(sentences(seed=count), range(count - 1), strict=False)]
    texts.append(texts[0])
    several = together._answer([PreparedQuery(text, None, 8) for text in texts])
    for place in range(0, count, max(1, count // 4)):
        assert several[place] == together.search_all(texts[place], 8)
        for method, expected in engine.search_all(texts[place], 8).items():
            found, scores = several[place][method], [hit.score for hit in expected.hits]
            assert [hit.score for hit in found.hits] == pytest.approx(scores, abs=1e-5)
            assert found.spread == pytest.approx(expected.spread, abs=1e-5)
            assert {hit.clip.id for hit in found.hits[:4]} <= {hit.clip.id for hit in expected.hits}


def test_a_sentence_is_encoded_the_same_beside_others(engine):
    texts = ["a dog", "two children slowly walk in the snow at night", "", "a dog", "an astronaut"]
    several = engine.encoder.encode_each(texts)
    assert torch.equal(several, torch.cat([engine.encoder.encode_each([text]) for text in texts]))
    torch.testing.assert_close(several, engine.encoder.encode_text(texts), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("few", "cores"), [(10_000, 1), (10, CORES)])
def test_few_videos_are_searched_on_one_core(engine, monkeypatch, few, cores):
    """As are sentences among them, which is as quick for one and leaves room for what else is computed."""
    monkeypatch.setattr("dits.search.engine._FEW_VIDEOS", few)
    seen, encode = [], engine.encoder.encode_each
    monkeypatch.setattr(
        engine.encoder, "encode_each", lambda texts: seen.append(torch.get_num_threads()) or encode(texts)
    )
    found = SearchEngine(engine.corpus, engine.encoder, engine.embeddings, engine.methods, batch_queries=True)
    compute_on(CORES)
    found.search("a dog", "mean", 1)
    assert seen == [cores]
    assert torch.get_num_threads() == CORES


def test_many_threads_get_their_own_answers(together):
    texts = [text for text, _ in zip(sentences(seed=9), range(40), strict=False)]
    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(lambda text: together.search(text, "dits", 3), texts))
    assert [result.query for result in found] == texts
    assert found[17] == together.search(texts[17], "dits", 3)

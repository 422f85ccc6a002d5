"""Questions of many threads, answered together: all who ask while others are answered are answered at once."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class QueryBatcher(Generic[Q, A]):
    """Asks a function that answers several questions in little more time than one, from any number of threads.

    The function runs in one thread, one call at a time, and gets whatever has come in during the call before: nobody
    waits for a batch to fill. Where it fails for several questions, it is asked each of them alone, so that what is
    wrong with one, or with their number, does not reach the others.

    Args:
        answer: gives the answers to questions, in their order.
        most: so many at once.
        begin: called first in that thread.
    """

    def __init__(
        self, answer: Callable[[Sequence[Q]], Sequence[A]], most: int, begin: Callable[[], object] | None = None
    ) -> None:
        self._answer, self._most = answer, most
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="query-batcher", initializer=begin)

    def __call__(self, question: Q) -> A:
        """The answer; raises what the function raises for this question alone."""
        asked: Future[A] = Future()
        self._waiting.append((question, asked))
        self._thread.submit(self._answer_waiting)  # finds nobody, where an earlier call has taken this one along
        return asked.result()

    def _answer_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
        if not batch:
            return
        try:
            answers = self._answer([question for question, _ in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                self._answer_each(batch)
        else:
            for (_, asked), answer in zip(batch, answers, strict=True):
                asked.set_result(answer)

    def _answer_each(self, batch: Sequence[tuple[Q, "Future[A]"]]) -> None:
        for question, asked in batch:
            try:
                [answer] = self._answer([question])
            except BaseException as error:
                asked.set_exception(error)
            else:
                asked.set_result(answer)

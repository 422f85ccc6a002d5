"""Batches of queries from many threads: queries that arrive while a batch is computed form the next batch."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class QueryBatcher(Generic[Q, A]):
    """Calls a function that answers a batch of queries almost as fast as one query, from any number of threads.

    The function runs in one thread, one call at a time, with the queries that have arrived during the previous call: no
    query waits for a batch to fill. If a call fails for several queries, the function is called for each of them alone,
    so that an error caused by one query, or by the size of the batch, does not affect the others.

    Args:
        answer: returns the answers to a batch of queries, in their order.
        max_batch: maximum number of queries in a batch.
        initializer: called once in that thread, before the first batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        max_batch: int,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self._answer, self._max_batch = answer, max_batch
        self._waiting: deque[tuple[Q, Future[A]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="query-batcher", initializer=initializer)

    def __call__(self, query: Q) -> A:
        """The answer to a query; raises the error of the function for this query alone."""
        future: Future[A] = Future()
        self._waiting.append((query, future))
        self._thread.submit(self._answer_waiting)  # does nothing if an earlier batch has included this query
        return future.result()

    def _answer_waiting(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
        if batch:
            self._answer_batch(batch)

    def _answer_batch(self, batch: Sequence[tuple[Q, "Future[A]"]]) -> None:
        try:
            answers = self._answer([query for query, _ in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for item in batch:
                    self._answer_batch([item])
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

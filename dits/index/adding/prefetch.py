"""Prefetching: a background thread runs a generator ahead of its consumer."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_TICK = 0.25  # seconds


class Prefetcher(Generic[T]):
    """Iterates over a generator that a background thread runs. Exceptions of the generator are raised here.

    Args:
        make_generator: makes the generator. Its argument is a function that returns true once `close` was called.
        max_waiting: maximum number of prefetched results; bounds their memory.
        tick: called several times per second while no result is ready. Its exceptions are raised here.
    """

    def __init__(
        self,
        make_generator: Callable[[Callable[[], bool]], Generator[T]],
        max_waiting: int,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(max_waiting)
        self._tick = tick
        self._closed = threading.Event()
        generator = make_generator(self._closed.is_set)
        self._thread = threading.Thread(target=self._run, args=(generator,), name="prefetcher", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                result, error = self._results.get(timeout=_TICK)
            except queue.Empty:
                self._tick()
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield result  # type: ignore[misc]

    def close(self) -> None:
        """Stops the generator and waits for its end."""
        self._closed.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):  # makes room, so that the thread is not stuck in `put`
                self._results.get(timeout=0.05)
        self._thread.join()

    def _run(self, generator: Generator[T]) -> None:
        end: BaseException = StopIteration()
        try:
            for result in generator:
                if self._closed.is_set():
                    break
                self._results.put((result, None))
        except BaseException as error:
            end = error
        finally:
            generator.close()
        self._results.put((None, end))

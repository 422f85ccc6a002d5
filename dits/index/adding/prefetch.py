"""Results made ahead of whoever asks for them, in a thread, as many as are allowed to wait."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

_TICK = 0.25  # seconds


class Prefetcher(Generic[T]):
    """Iterates over a generator that a thread runs. What it raises is raised here; `close` ends it at once.

    Args:
        make: makes the generator, and is told whom it may ask whether to end. The thread alone touches it.
        waiting: how many results may wait: the bound of the memory that they take.
        tick: called several times a second while no result waits. What it raises is raised here.
    """

    def __init__(
        self,
        make: Callable[[Callable[[], bool]], Generator[T]],
        waiting: int,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(waiting)
        self._tick = tick
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(make(self._closed.is_set),), name="prefetcher", daemon=True
        )
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
        """Ends the generator, wherever it is, and waits for that."""
        self._closed.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):  # room for what the thread is about to put
                self._results.get(timeout=0.05)
        self._thread.join()

    def _run(self, made: Generator[T]) -> None:
        end: BaseException = StopIteration()
        try:
            for result in made:
                if self._closed.is_set():
                    break
                self._results.put((result, None))
        except BaseException as error:
            end = error
        finally:
            made.close()
        self._results.put((None, end))

"""A function on many items, in processes that an item may crash or hang: what is lost then is that item alone."""

import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from dits.errors import DitsError
from dits.processes import worker_context

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRIES = 2  # a process may also die of the memory that all of them take
_SECONDS_TO_START = 300


@dataclass(frozen=True)
class Lost:
    """In the place of a result: the process died, or was ended because it took too long."""

    timed_out: bool


def each_expendably(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, seconds: float
) -> Generator[tuple[Item, Result | Lost]]:
    """Every item with its result, as they come. See `run_expendably`.

    Args:
        seconds: what one item may take; starting a process does not count.
    """
    left = iter(items)
    return run_expendably(function, lambda: next(left, None), workers, lambda item: seconds)


def run_expendably(
    function: Callable[[Item], Result],
    take: Callable[[], Item | None],
    workers: int,
    seconds: Callable[[Item], float],
) -> Generator[tuple[Item, Result | Lost]]:
    """Items with their results, as they come; results may add to the items.

    A process that dies or takes too long is replaced. An item that a process died of is tried once more, after the
    others. At most one result a worker waits for whoever asks: who is slow to ask slows the workers.

    Args:
        function: of a module's top level, for new processes import it. If it raises, its process dies.
        take: gives the next item, or None when there is none. It is asked again after every result, and the run ends
            when there is none and no result is awaited.
        workers: processes.
        seconds: what an item may take; starting a process does not count.

    Raises:
        DitsError: a process does not start.
    """
    crew: list[_Worker[Item]] = []
    retries: deque[_Job[Item]] = deque()
    pending: deque[_Job[Item]] = deque()  # taken, and waiting for a process that starts
    try:
        while True:
            while len(pending) + sum(worker.job is not None for worker in crew) < workers:
                item = take()
                if item is None and not retries:
                    break
                pending.append(retries.popleft() if item is None else _Job(item, seconds(item)))
            if not pending and not any(worker.job for worker in crew):
                return
            idle = [worker for worker in crew if worker.idle]
            for worker, _ in zip(idle, list(pending), strict=False):
                worker.give(pending.popleft())
            starting = sum(not worker.started for worker in crew)
            crew += [_Worker(function) for _ in range(len(pending) - starting)]
            heard = wait([worker.pipe for worker in crew], max(0.0, min(w.deadline for w in crew) - time.monotonic()))
            for worker in [w for w in crew if w.pipe in heard or w.deadline <= time.monotonic()]:
                done, answer = worker.job, worker.answer() if worker.pipe in heard else Lost(timed_out=True)
                if isinstance(answer, Lost):
                    crew.remove(worker)
                    worker.end()
                    if not worker.started:
                        raise DitsError("A process for decoding videos does not start: free memory, or take fewer.")
                    if done and not answer.timed_out and done.tries < _TRIES:
                        retries.append(_Job(done.item, done.seconds, done.tries + 1))
                        continue
                worker.rest()
                if done:
                    yield done.item, answer
    finally:
        for worker in crew:
            worker.end()


@dataclass(frozen=True)
class _Job(Generic[Item]):
    item: Item
    seconds: float
    tries: int = 1


class _Worker(Generic[Item]):
    """A process of one's own pipe, so that its death tells which item it died of."""

    def __init__(self, function: Callable[[Item], Any]) -> None:
        context: Any = worker_context()
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self._process.start()
        theirs.close()  # the process holds the only other end: when it dies, the pipe says so
        self.started = False
        self.job: _Job[Item] | None = None
        self.deadline = time.monotonic() + _SECONDS_TO_START

    @property
    def idle(self) -> bool:
        return self.started and self.job is None

    def give(self, job: _Job[Item]) -> None:
        self.job, self.deadline = job, time.monotonic() + job.seconds
        with suppress(OSError):  # it died meanwhile, which `answer` tells
            self.pipe.send(job.item)

    def answer(self) -> Any:
        """What the process has sent: a result, or None once it has started; `Lost` if it is dead."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return Lost(timed_out=False)

    def rest(self) -> None:
        self.started, self.job, self.deadline = True, None, float("inf")

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone decides
    pipe.send(None)
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            pipe.send(function(pipe.recv()))

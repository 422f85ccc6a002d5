"""A function on many items, in processes that an item may crash or hang: what is lost then is that item alone."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from dits.errors import DitsError

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRIES = 2  # a process may also die of the memory that all of them take
_SECONDS_TO_START = 300


@dataclass(frozen=True)
class Lost:
    """In the place of a result: the process died, or was ended because it took too long."""

    timed_out: bool


def each_expendably(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, seconds: float
) -> Generator[tuple[int, Result | Lost]]:
    """Every item's number with its result, as they come.

    A process that dies or takes too long is replaced. An item that a process died of is tried once more, after the
    others.

    Args:
        function: of a module's top level, for new processes import it. If it raises, its process dies.
        workers: processes.
        seconds: what one item may take; starting a process does not count.

    Raises:
        DitsError: a process does not start.
    """
    waiting = deque((number, 1) for number in range(len(items)))  # with which try it is
    crew: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in crew):
            wanted = min(workers, len(waiting) + sum(worker.job is not None for worker in crew))
            crew += [_Worker(function) for _ in range(wanted - len(crew))]
            for worker in crew:
                if worker.idle and waiting:
                    job = waiting.popleft()
                    worker.give(job, items[job[0]], seconds)
            heard = wait([worker.pipe for worker in crew], max(0.0, min(w.deadline for w in crew) - time.monotonic()))
            for worker in [w for w in crew if w.pipe in heard or w.deadline <= time.monotonic()]:
                done, answer = worker.job, worker.answer() if worker.pipe in heard else Lost(timed_out=True)
                if isinstance(answer, Lost):
                    crew.remove(worker)
                    worker.end()
                    if not worker.started:
                        raise DitsError("A process for decoding videos does not start: free memory, or take fewer.")
                    if done and not answer.timed_out and done[1] < _TRIES:
                        waiting.append((done[0], done[1] + 1))
                        continue
                worker.rest()
                if done:
                    yield done[0], answer
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process of one's own pipe, so that its death tells which item it died of."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self._process.start()
        theirs.close()  # the process holds the only other end: when it dies, the pipe says so
        self.started = False
        self.job: tuple[int, int] | None = None
        self.deadline = time.monotonic() + _SECONDS_TO_START

    @property
    def idle(self) -> bool:
        return self.started and self.job is None

    def give(self, job: tuple[int, int], item: Any, seconds: float) -> None:
        self.job, self.deadline = job, time.monotonic() + seconds
        with suppress(OSError):  # it died meanwhile, which `answer` tells
            self.pipe.send(item)

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

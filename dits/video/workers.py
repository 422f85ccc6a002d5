"""A function on many items, in processes that an item may crash or hang: what is lost then is that item alone."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from dits.common.errors import DitsError
from dits.common.processes import worker_context

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRIES = 2  # a process may also die of the memory that all of them take
_SECONDS_TO_START = 300
_SECONDS_TO_WAIT = 0.25

_NO_START = "A process for decoding videos does not start, or was ended: free memory, or take fewer, and try again."

MAX_BYTES = 2**33
"""Of memory that a process may ask for, where the system counts it (Linux), and never more than half of what there is.
PyTorch and its threads take one gigabyte; of the largest frames that are read, 8192 x 8192, decoders keep up to
sixteen, 0.1 to 0.2 GB each. A file that asks for more fails, or ends its process alone."""


@dataclass(frozen=True)
class Lost:
    """In the place of a result: the process died, or was ended because it took too long."""

    timed_out: bool


def map_in_workers(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, seconds: float
) -> Generator[tuple[Item, Result | Lost]]:
    """Every item with its result, as they come. See `run_in_worker`.

    Args:
        seconds: what one item may take; starting a process does not count.
    """
    left = iter(items)
    return run_in_worker(function, lambda: next(left, None), workers, lambda item: seconds)


def run_in_worker(
    function: Callable[[Item], Result],
    take: Callable[[], Item | None],
    workers: int,
    seconds: Callable[[Item], float],
    ended: Callable[[], bool] = lambda: False,
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
        ended: asked several times a second; the run ends, whatever is awaited, once it says so.

    Raises:
        DitsError: a process does not start.
    """
    crew = _WorkerPool(function, workers)
    retries: deque[_Job[Item]] = deque()
    try:
        while not ended():
            while crew.has_room:
                item = take()
                if item is not None:
                    crew.pending.append(_Job(item, seconds(item)))
                elif retries:
                    crew.pending.append(retries.popleft())
                else:
                    break
            if not crew.busy:
                return
            for done, answer in crew.answers():
                if isinstance(answer, Lost) and not answer.timed_out and done.tries < _TRIES:
                    retries.append(_Job(done.item, done.seconds, done.tries + 1))
                else:
                    yield done.item, answer
    finally:
        crew.end()


@dataclass(frozen=True)
class _Job(Generic[Item]):
    item: Item
    seconds: float
    tries: int = 1


class _WorkerPool(Generic[Item]):
    """Processes, and what they are given: `pending` are jobs that wait for a process that starts."""

    def __init__(self, function: Callable[[Item], Any], workers: int) -> None:
        self.pending: deque[_Job[Item]] = deque()
        self._function, self._most = function, workers
        self._workers: list[_Worker[Item]] = []

    @property
    def has_room(self) -> bool:
        return len(self.pending) + sum(worker.job is not None for worker in self._workers) < self._most

    @property
    def busy(self) -> bool:
        return bool(self.pending) or any(worker.job for worker in self._workers)

    def answers(self) -> Iterator[tuple[_Job[Item], Any]]:
        """Hands out what is pending, waits a moment, and gives the jobs that ended meanwhile, with their answers."""
        self._hand_out()
        wake = max(0.0, min(worker.deadline for worker in self._workers) - time.monotonic())
        heard = wait([worker.pipe for worker in self._workers], min(wake, _SECONDS_TO_WAIT))
        for worker in [w for w in self._workers if w.pipe in heard or w.deadline <= time.monotonic()]:
            job, answer = worker.job, worker.answer() if worker.pipe in heard else Lost(timed_out=True)
            if isinstance(answer, Lost):
                self._workers.remove(worker)
                worker.end()
                if not worker.started:
                    raise DitsError(_NO_START)
            worker.rest()
            if job:
                yield job, answer

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.idle and self.pending:
                worker.give(self.pending.popleft())
        starting = sum(not worker.started for worker in self._workers)
        self._workers += [_Worker(self._function) for _ in range(len(self.pending) - starting)]

    def end(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker(Generic[Item]):
    """A process of one's own pipe, so that its death tells which item it died of."""

    def __init__(self, function: Callable[[Item], Any]) -> None:
        context: Any = worker_context()
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        try:
            with _interrupts_held():
                self._process.start()
        except (EOFError, OSError) as error:  # there is no room for it, or the process that starts them has died
            raise DitsError(_NO_START) from error
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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """What is started meanwhile never sees Ctrl-C, which a terminal sends to all processes; the caller does, later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which multiprocessing starts otherwise, and then lets interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _bound_memory()
    pipe.send(None)
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            pipe.send(function(pipe.recv()))


def _end_with_parent() -> None:
    """A parent that is killed takes with it what would decode for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _bound_memory() -> None:
    try:
        import resource

        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ImportError, ValueError, OSError):  # Windows has no such bound
        return
    most = min(MAX_BYTES, half)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

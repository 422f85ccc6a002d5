"""Apply a function to many items in worker processes. An item that crashes or hangs its worker fails alone."""

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

_TRIES = 2  # a worker can also die because all of them together use too much memory
_START_SECONDS = 300
_POLL_SECONDS = 0.25

_START_FAILURE = "A worker process does not start, or was killed: free memory, or use fewer workers, and try again."

SECONDS_PER_FILE = 60
"""The default time limit of a file. An intact file takes less than a second."""

MAX_BYTES = 2**33
"""The memory limit of a worker on Linux; at most half of the machine's memory.
PyTorch and its threads use 1 GB. Decoders keep up to 16 frames; the largest frames, 8192 x 8192, have 0.1 to 0.2 GB
each. A file that needs more fails, or kills only its own worker."""


@dataclass(frozen=True)
class WorkerFailure:
    """Replaces a result: the worker died, or was killed because it took too long."""

    timed_out: bool


def failure_reason(failure: WorkerFailure, seconds: float) -> str:
    """The reason why a worker failed on a file, given the file's time limit."""
    reason = f"it took longer than {seconds:g} seconds" if failure.timed_out else "it ends the process that decodes it"
    return f"{reason}; get it again, or convert it to mp4."


def map_in_workers(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, seconds: float
) -> Generator[tuple[Item, Result | WorkerFailure]]:
    """Yield every item with its result, in the order of completion. See `run_in_workers`.

    Args:
        seconds: the time limit of one item.
    """
    remaining = iter(items)
    return run_in_workers(function, lambda: next(remaining, None), workers, lambda item: seconds)


def run_in_workers(
    function: Callable[[Item], Result],
    next_item: Callable[[], Item | None],
    workers: int,
    seconds: Callable[[Item], float],
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Generator[tuple[Item, Result | WorkerFailure]]:
    """Yield items with their results, in the order of completion; the caller may add items after a result.

    A worker that dies or exceeds the time limit is replaced. If a worker dies, its item is tried once more, after the
    others. Each worker holds at most one result until the caller takes it, so a slow caller slows the workers.

    Args:
        function: must be at the top level of a module, because workers import it. If it raises, its worker dies.
        next_item: returns the next item, or None if there is none at the moment. It is called again after every
            result; the run ends when it returns None and no item is in progress.
        workers: the number of worker processes.
        seconds: the time limit of an item, without the start of a worker.
        is_cancelled: called several times a second; the run ends at once when it returns True.

    Raises:
        DitsError: a worker does not start.
    """
    pool = _WorkerPool(function, workers)
    retries: deque[_Job[Item]] = deque()
    try:
        while not is_cancelled():
            while pool.has_room:
                item = next_item()
                if item is not None:
                    pool.pending.append(_Job(item, seconds(item)))
                elif retries:
                    pool.pending.append(retries.popleft())
                else:
                    break
            if not pool.is_busy:
                return
            for job, result in pool.results():
                if isinstance(result, WorkerFailure) and not result.timed_out and job.tries < _TRIES:
                    retries.append(_Job(job.item, job.seconds, job.tries + 1))
                else:
                    yield job.item, result
    finally:
        pool.close()


@dataclass(frozen=True)
class _Job(Generic[Item]):
    item: Item
    seconds: float
    tries: int = 1


class _WorkerPool(Generic[Item]):
    """Worker processes and their jobs; `pending` jobs wait for an idle or starting worker."""

    def __init__(self, function: Callable[[Item], Any], workers: int) -> None:
        self.pending: deque[_Job[Item]] = deque()
        self._function, self._max_workers = function, workers
        self._workers: list[_Worker[Item]] = []

    @property
    def has_room(self) -> bool:
        return len(self.pending) + sum(worker.job is not None for worker in self._workers) < self._max_workers

    @property
    def is_busy(self) -> bool:
        return bool(self.pending) or any(worker.job for worker in self._workers)

    def results(self) -> Iterator[tuple[_Job[Item], Any]]:
        """Assign pending jobs, wait for a moment, and yield the jobs that ended meanwhile with their results."""
        self._assign_jobs()
        timeout = max(0.0, min(worker.deadline for worker in self._workers) - time.monotonic())
        ready = wait([worker.pipe for worker in self._workers], min(timeout, _POLL_SECONDS))
        for worker in [w for w in self._workers if w.pipe in ready or w.deadline <= time.monotonic()]:
            job, result = worker.job, worker.receive() if worker.pipe in ready else WorkerFailure(timed_out=True)
            if isinstance(result, WorkerFailure):
                self._workers.remove(worker)
                worker.kill()
                if not worker.started:
                    raise DitsError(_START_FAILURE)
            worker.set_idle()
            if job:
                yield job, result

    def _assign_jobs(self) -> None:
        for worker in self._workers:
            if worker.started and worker.job is None and self.pending:
                worker.send(self.pending.popleft())
        starting = sum(not worker.started for worker in self._workers)
        self._workers += [_Worker(self._function) for _ in range(len(self.pending) - starting)]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


class _Worker(Generic[Item]):
    """A process with its own pipe, so that its death identifies the item."""

    def __init__(self, function: Callable[[Item], Any]) -> None:
        context: Any = worker_context()
        self.pipe, worker_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, worker_end), daemon=True)
        try:
            with _interrupts_blocked():
                self._process.start()
        except (EOFError, OSError) as error:  # no memory, or the fork server has died
            raise DitsError(_START_FAILURE) from error
        worker_end.close()  # the process has the only other copy: when it dies, reading the pipe fails
        self.started = False
        self.job: _Job[Item] | None = None
        self.deadline = time.monotonic() + _START_SECONDS

    def send(self, job: _Job[Item]) -> None:
        self.job, self.deadline = job, time.monotonic() + job.seconds
        with suppress(OSError):  # the worker has died: `receive` reports it
            self.pipe.send(job.item)

    def receive(self) -> Any:
        """The message of the process: None after its start, then results; `WorkerFailure` if it is dead."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return WorkerFailure(timed_out=False)

    def set_idle(self) -> None:
        self.started, self.job, self.deadline = True, None, float("inf")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started inside the block never receive Ctrl-C, which a terminal sends to all; the caller does later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # otherwise multiprocessing starts it here, and that unblocks interrupts
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent reacts to Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _limit_memory()
    pipe.send(None)
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            pipe.send(function(pipe.recv()))


def _exit_with_parent() -> None:
    """Exit when the parent dies; otherwise a worker could decode for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _limit_memory() -> None:
    try:
        import resource

        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ImportError, ValueError, OSError):  # Windows has no such limit
        return
    limit = min(MAX_BYTES, half)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

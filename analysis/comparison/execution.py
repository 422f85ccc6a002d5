"""Carries out runs in parallel processes, one result file each, so that an interrupted comparison goes on."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from analysis.comparison.features import Features
from analysis.comparison.runs import Plan, Run, carry_out, summary_line
from dits.common.errors import DitsError, StorageError, require
from dits.common.files import make_folder, parse_json, write_json
from dits.common.processes import worker_context
from dits.common.threads import compute_on

Report = Callable[[str], None]


def results_of(
    plan: Plan, runs: Sequence[Run], folder: Path, jobs: int, report: Report
) -> tuple[list[dict[str, Any]], list[tuple[Run, str]]]:
    """The results of all runs, in their order, and those that failed with the reason in one sentence.

    Results of earlier calls are read, the others are computed. Every run computes on one core, so its result does not
    depend on the number of jobs.

    Args:
        folder: results are written here, one file a run, whole or not at all.
        jobs: number of runs at the same time, each in a process of its own; 1 computes in this process.
        report: called with a line for every run that ends, with the elapsed time and an estimate of the remaining.

    Raises:
        InputError: the jobs are less than 1.
        StorageError: the folder cannot be written, or a result in it is damaged.
    """
    require(jobs >= 1, f"The jobs must be 1 or more, not {jobs}.")
    make_folder(folder)
    missing = [run for run in runs if not (folder / plan.name(run)).is_file()]
    if missing:
        report(f"{len(missing)} of {len(runs)} runs to compute, {min(jobs, len(missing))} at a time")
    failures: list[tuple[Run, str]] = []
    start = time.monotonic()
    with closing(_outcomes(plan, missing, folder, jobs)) as outcomes:
        for done, (run, outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, DitsError):
                failures.append((run, str(outcome)))
            passed = _times(time.monotonic() - start, done, len(missing))
            report(f"{done}/{len(missing)} {run.label}: {outcome}; {passed}")
    failed = [run for run, _ in failures]
    return [_read(folder / plan.name(run)) for run in runs if run not in failed], failures


def _outcomes(plan: Plan, runs: Sequence[Run], folder: Path, jobs: int) -> Generator[tuple[Run, str | DitsError]]:
    """Computes the runs, and yields each with a summary, or with the error of its training."""
    if jobs == 1 or len(runs) < 2:
        worker = _Worker(plan, folder)
        for run in runs:
            yield run, worker.outcome(run)
        return
    others = multiprocessing.active_children()
    executor = ProcessPoolExecutor(min(jobs, len(runs)), worker_context(), initializer=_start, initargs=(plan, folder))
    try:
        pending = {executor.submit(_outcome, run): run for run in runs}
        for future in as_completed(pending):
            yield pending[future], future.result()
    except BrokenProcessPool as error:
        raise DitsError(
            "A process was ended from outside, perhaps because the memory was full. Finished runs are kept: start "
            "again, with fewer --jobs."
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in others:
                child.terminate()


class _Worker:
    """A process that carries out runs; the features are read for the first one."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self._features: Features | None = None

    def outcome(self, run: Run) -> str | DitsError:
        path = self.folder / self.plan.name(run)
        if path.is_file():  # of another program that computes the same runs
            return summary_line(_read(path))
        self._features = self._features or self.plan.corpus.read()
        try:
            with _one_core():
                result = carry_out(self.plan, run, self._features)
        except StorageError:
            raise
        except DitsError as error:
            return error
        write_json(path, result)
        return summary_line(result)


_worker: _Worker | None = None
"""Of a process that `_start` has prepared."""


def _start(plan: Plan, folder: Path) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    threading.Thread(target=_end_with_the_first_process, daemon=True).start()
    _worker = _Worker(plan, folder)


def _end_with_the_first_process() -> None:
    """Ends this process when the first one is ended from outside, and can no longer do it."""
    first = multiprocessing.parent_process()
    assert first is not None
    wait([first.sentinel])
    os._exit(1)


def _outcome(run: Run) -> str | DitsError:
    assert _worker is not None
    return _worker.outcome(run)


@contextmanager
def _one_core() -> Iterator[None]:
    cores = torch.get_num_threads()
    compute_on(1)
    try:
        yield
    finally:
        compute_on(cores)


def _read(path: Path) -> dict[str, Any]:
    """The result in a file.

    Raises:
        StorageError: it was not written by a comparison.
    """
    try:
        result = parse_json(path.read_text(encoding="utf-8"))
        if not {"mode", "method", "seed", "best", "ranks", "alignment", "ms"} <= result.keys():
            raise ValueError
        return result
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(f"{path} is not a result of a run: remove it to compute the run again.") from error


def _times(elapsed: float, done: int, total: int) -> str:
    """The elapsed time, and the remaining time if all runs take as long as those that are done."""
    return f"{_minutes(elapsed)} elapsed, about {_minutes(elapsed / done * (total - done))} left"


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"

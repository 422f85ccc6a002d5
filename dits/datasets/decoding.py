"""Which videos do not decode: two frames of each are read, in processes of their own, which a file may take down."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from dits.corpus import Clip
from dits.errors import DitsError
from dits.video import sample_frames

Progress = Callable[[int, int], None]
"""Called with the number of clips that were tried, and of all."""

_FRAMES, _SIZE = 2, 64
_MOST_WORKERS = 8
_CRASH = "it ends the process that decodes it; get it again, or convert it to mp4."


def undecodable(clips: Sequence[Clip], progress: Progress | None = None, workers: int | None = None) -> dict[str, str]:
    """Why clips do not decode, by their ids, in the clips' order.

    Args:
        progress: told after every clip.
        workers: processes; by default one a core, up to 8.
    """
    waiting = deque(clips)
    reasons: dict[str, str] = {}
    done = 0

    def tried(clip: Clip, reason: str | None) -> None:
        nonlocal done
        done += 1
        if reason:
            reasons[clip.id] = reason
        if progress:
            progress(done, len(clips))

    while waiting:
        # Where a process died, any clip that was then in work may be the reason: each is tried alone.
        for suspect in _try_all(waiting, workers or _cores(), tried):
            for clip in _try_all(deque([suspect]), 1, tried):
                tried(clip, _CRASH)
    return {clip.id: reasons[clip.id] for clip in clips if clip.id in reasons}


def _try_all(waiting: deque[Clip], workers: int, tried: Callable[[Clip, str | None], None]) -> list[Clip]:
    """Tries clips from the front of the queue until it is empty, or a process dies: then those that were in work."""
    context = multiprocessing.get_context("spawn")
    lost: list[Clip] = []
    ignore_interrupts = (signal.SIGINT, signal.SIG_IGN)  # the parent alone decides
    workers = min(workers, len(waiting))
    with ProcessPoolExecutor(workers, context, initializer=signal.signal, initargs=ignore_interrupts) as pool:
        running: dict[Future[str | None], Clip] = {}
        while running or (waiting and not lost):
            while waiting and not lost and len(running) < 2 * workers:
                clip = waiting.popleft()
                try:
                    running[pool.submit(_reason, clip)] = clip
                except BrokenProcessPool:
                    lost.append(clip)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                clip = running.pop(future)
                try:
                    reason = future.result()
                except BrokenProcessPool:
                    lost.append(clip)
                else:
                    tried(clip, reason)
    return lost


def _reason(clip: Clip) -> str | None:
    """Why a clip does not decode, or None."""
    try:
        sample_frames(clip.path, _FRAMES, size=_SIZE, start=clip.start, end=clip.end)
    except DitsError as error:
        return str(error)
    except Exception as error:  # whatever a decoder raises is a reason
        return f"{clip.path.name} cannot be decoded ({type(error).__name__}: {error})."
    return None


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, cores)

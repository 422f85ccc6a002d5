"""Which videos do not decode: frames of each are read, in processes of their own, which a file may take down."""

import os
from collections.abc import Callable, Sequence
from functools import partial

from dits.common.errors import DitsError
from dits.corpora.corpus import Clip
from dits.video.sampling import sample_frames
from dits.video.workers import Lost, map_in_workers

Progress = Callable[[int, int], None]
"""Called with the number of clips that were tried, and of all."""

SECONDS = 60
"""How long a file may take, unless said otherwise. A healthy one takes less than one."""

_MAX_WORKERS = 8


def undecodable(
    clips: Sequence[Clip],
    progress: Progress | None = None,
    workers: int | None = None,
    seconds: float = SECONDS,
    frames: int = 2,
    size: int = 64,
) -> dict[str, str]:
    """Why clips do not decode, by their ids, in the clips' order.

    Args:
        progress: told after every clip.
        workers: processes; by default one a core, up to 8.
        seconds: how long one clip may take.
        frames: how many of each clip are read.
        size: of their shorter side, in pixels.
    """
    reasons: dict[str, str] = {}
    results = map_in_workers(partial(_reason, frames=frames, size=size), clips, workers or cores(), seconds)
    for done, (clip, result) in enumerate(results, start=1):
        reason = why_lost(result, seconds) if isinstance(result, Lost) else result
        if reason:
            reasons[clip.id] = reason
        if progress:
            progress(done, len(clips))
    return {clip.id: reasons[clip.id] for clip in clips if clip.id in reasons}


def _reason(clip: Clip, frames: int, size: int) -> str | None:
    """Why a clip does not decode, or None."""
    try:
        sample_frames(clip.path, frames, size=size, start=clip.start, end=clip.end)
    except DitsError as error:
        return str(error)
    except Exception as error:  # whatever a decoder raises is a reason
        return f"{clip.path.name} cannot be decoded ({type(error).__name__}: {error})."
    return None


def why_lost(lost: Lost, seconds: float) -> str:
    """Why a clip has no result, after the seconds that it had."""
    what = f"it took longer than {seconds:g} seconds" if lost.timed_out else "it ends the process that decodes it"
    return f"{what}; get it again, or convert it to mp4."


def cores() -> int:
    """How many processes decode, unless said otherwise: one a core, up to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_WORKERS, cores)

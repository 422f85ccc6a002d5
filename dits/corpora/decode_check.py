"""Finds clips that cannot be decoded: reads frames of each clip, in worker processes that a file may crash."""

from collections.abc import Sequence
from functools import partial

from dits.common.errors import DitsError
from dits.common.processes import default_workers
from dits.corpora.corpus import Clip, Progress
from dits.video.sampling import sample_frames
from dits.video.workers import SECONDS_PER_FILE, WorkerFailure, failure_reason, map_in_workers


def undecodable(
    clips: Sequence[Clip],
    progress: Progress | None = None,
    workers: int | None = None,
    seconds: float = SECONDS_PER_FILE,
    frames: int = 2,
    size: int = 64,
) -> dict[str, str]:
    """The reasons why clips cannot be decoded, by clip id, in the order of the clips.

    Args:
        progress: called after every clip.
        workers: the number of worker processes; by default one per CPU core, at most 8.
        seconds: the time limit of a clip.
        frames: the number of frames to read per clip.
        size: the length of their shorter side, in pixels.
    """
    reasons: dict[str, str] = {}
    check = partial(_decode_error, frames=frames, size=size)
    for done, (clip, result) in enumerate(map_in_workers(check, clips, workers or default_workers(), seconds), start=1):
        reason = failure_reason(result, seconds) if isinstance(result, WorkerFailure) else result
        if reason:
            reasons[clip.id] = reason
        if progress:
            progress(done, len(clips))
    return {clip.id: reasons[clip.id] for clip in clips if clip.id in reasons}


def _decode_error(clip: Clip, frames: int, size: int) -> str | None:
    try:
        sample_frames(clip.path, frames, size=size, start=clip.start, end=clip.end)
    except DitsError as error:
        return str(error)
    except Exception as error:  # decoders raise errors of many classes
        return f"{clip.path.name} cannot be decoded ({type(error).__name__}: {error})."
    return None

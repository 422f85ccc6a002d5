"""Loads clips with worker processes that prefetch them in a given order, as input pixels of an encoder."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dits.common.errors import DitsError, VideoError
from dits.common.processes import cpu_cores, worker_context
from dits.corpora.corpus import FRAMES, Clip
from dits.encoders.transforms import FrameTransform
from dits.video.sampling import sample_frames

_SECONDS_PER_CLIP = 300  # if a clip takes longer, the decoder is assumed to hang; see `decode_check`
_MAX_WORKERS = 8
_CLIPS_PER_WORKER = 64  # starting a worker takes about as long as reading this many clips


@dataclass(frozen=True)
class LoadedClip:
    """A clip's pixels (F, 3, H, W), uint8, and the times of its frames (F,), in seconds."""

    pixels: Tensor
    times: Tensor


@dataclass(frozen=True)
class ClipReader:
    """Reads the pixels of clips.

    Attributes:
        transform: the transform of the encoder.
        frames: the number of frames per clip: one from each of this many equal parts.
        random_frames: sample a random time in each part (X-Pool's "rand") instead of the middle.
        augment: one random crop and flip for all frames of a clip, instead of the encoder's own crop.
    """

    transform: FrameTransform
    frames: int = FRAMES
    random_frames: bool = False
    augment: bool = False

    def read(self, clip: Clip, seed: int = 0) -> LoadedClip:
        """Read a clip. All randomness depends on the seed alone, not on the process.

        Raises:
            VideoError: the video cannot be decoded.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            positions = torch.rand(self.frames, dtype=torch.float64).numpy() if self.random_frames else None
            size = min(self.transform.size)
            sampled = sample_frames(
                clip.path, self.frames, size=size, start=clip.start, end=clip.end, positions=positions
            )
            crop = self.transform.augment if self.augment else self.transform.crop
            return LoadedClip(crop(sampled.frames), torch.from_numpy(sampled.times).float())


def read_clips(
    clips: Sequence[Clip],
    reader: ClipReader,
    order: Iterable[tuple[int, int]],
    workers: int = 0,
    prefetch: int = 8,
    pin_memory: bool = False,
) -> Generator[LoadedClip | DitsError]:
    """Yield clips in the given order, prefetched; an unreadable clip is replaced by its error.

    The workers live as long as the generator, so a training run uses one generator for all epochs.

    Args:
        order: positions in `clips`, each with a random seed. May be an endless generator: it is consumed lazily.
        workers: the number of worker processes; 0 reads in this process.
        prefetch: the number of clips that each worker prefetches.
        pin_memory: return pixels in page-locked memory, from which they are copied to a GPU in the background.

    Raises:
        VideoError: a worker died, or took minutes for one clip.
    """
    loader = DataLoader(
        _Clips(clips, reader),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context=worker_context() if workers else None,
        timeout=_SECONDS_PER_CLIP if workers else 0,
        pin_memory=pin_memory,
    )
    items = iter(loader)
    while True:
        try:
            pixels, times, error = next(items)
        except StopIteration:
            return
        except RuntimeError as failure:
            if not str(failure).startswith("DataLoader"):  # its messages for a dead worker and for a timeout
                raise
            raise VideoError(
                "A worker process died or took minutes for one clip: free memory, or use fewer workers. "
                "`data check --decode` finds damaged files, and --undecodable skip trains without them."
            ) from failure
        yield error or LoadedClip(pixels, times)


def read_all(
    clips: Sequence[Clip], reader: ClipReader, workers: int = 0, pin_memory: bool = False
) -> Iterator[LoadedClip]:
    """Yield every clip once, in order.

    Raises:
        VideoError: a video cannot be decoded.
    """
    for result in read_clips(clips, reader, ((n, 0) for n in range(len(clips))), workers, pin_memory=pin_memory):
        yield raise_if_error(result)


def raise_if_error(result: LoadedClip | DitsError) -> LoadedClip:
    """The clip; raises the error if it could not be read."""
    if isinstance(result, DitsError):
        raise result
    return result


def worker_count(clips: int) -> int:
    """The number of workers for this many clips: 0 for a few, at most 8; one CPU core is left for the encoder."""
    return min(_MAX_WORKERS, max(1, cpu_cores() - 1), clips // _CLIPS_PER_WORKER)


class _Clips(Dataset[tuple[Tensor | None, Tensor | None, DitsError | None]]):
    def __init__(self, clips: Sequence[Clip], reader: ClipReader) -> None:
        self.clips, self.reader = clips, reader

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor | None, Tensor | None, DitsError | None]:
        number, seed = key
        try:
            clip = self.reader.read(self.clips[number], seed)
        except DitsError as error:  # returned, because a raised one would be wrapped in the worker's traceback
            return None, None, error
        return clip.pixels, clip.times, None

"""Clips read ahead by worker processes, in a given order, as the pixels that an encoder takes."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dits.common.errors import DitsError, VideoError
from dits.common.processes import worker_context
from dits.corpora.corpus import FRAMES, Clip
from dits.encoders.transforms import FrameTransform
from dits.video.sampling import sample_frames

_SECONDS_A_CLIP = 300  # a file that keeps a worker busy for longer never ends
_CLIPS_A_WORKER_IS_WORTH = 64  # starting one takes as long as reading about as many clips


@dataclass(frozen=True)
class ReadClip:
    """A clip's pixels (F, 3, H, W), uint8, and when each frame is shown (F,), in seconds."""

    pixels: Tensor
    times: Tensor


@dataclass(frozen=True)
class ClipReader:
    """How a clip becomes pixels.

    Attributes:
        transform: of the encoder that will see them.
        frames: how many frames, one from each of as many equal segments of the clip.
        random_frames: take a random moment of each segment, X-Pool's "rand", instead of the middle.
        augment: one random crop and flip for all frames of the clip, instead of the encoder's own crop.
    """

    transform: FrameTransform
    frames: int = FRAMES
    random_frames: bool = False
    augment: bool = False

    def read(self, clip: Clip, seed: int = 0) -> ReadClip:
        """Reads a clip; the seed decides everything random, whichever process reads.

        Raises:
            VideoError: the video cannot be decoded.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            positions = torch.rand(self.frames, dtype=torch.float64).numpy() if self.random_frames else None
            size = min(self.transform.size)
            # The one place that opens a clip's file, for training and for embedding.
            sampled = sample_frames(
                clip.path, self.frames, size=size, start=clip.start, end=clip.end, positions=positions
            )
            crop = self.transform.augment if self.augment else self.transform.crop
            return ReadClip(crop(sampled.frames), torch.from_numpy(sampled.times).float())


def read_clips(
    clips: Sequence[Clip],
    reader: ClipReader,
    order: Iterable[tuple[int, int]],
    workers: int = 0,
    prefetch: int = 8,
    pin_memory: bool = False,
) -> Generator[ReadClip | DitsError]:
    """The clips in the order given, read ahead; in the place of one that cannot be read, why not.

    One call keeps its workers to its end, so that a training asks once for all its epochs.

    Args:
        order: positions in `clips`, each with the seed of what is random. It may be endless: a generator is drawn from
            as clips are read.
        workers: processes that read; 0 reads in this one.
        prefetch: clips that each worker reads ahead.
        pin_memory: pixels come in page-locked memory, from which they are copied to a GPU in the background.

    Raises:
        VideoError: a worker died, or was busy with one clip for minutes.
    """
    loader = DataLoader(
        _Clips(clips, reader),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context=worker_context() if workers else None,
        timeout=_SECONDS_A_CLIP if workers else 0,
        pin_memory=pin_memory,
    )
    items = iter(loader)
    while True:
        try:
            pixels, times, error = next(items)
        except StopIteration:
            return
        except RuntimeError as failure:
            if not str(failure).startswith("DataLoader"):  # as it says of a dead worker, and of its timeout
                raise
            raise VideoError(
                "A process that reads videos died or took minutes for one clip: give it more memory, or fewer workers. "
                "`data check --decode` names a file at fault, and --undecodable skip trains without it."
            ) from failure
        yield error or ReadClip(pixels, times)


def read_all(
    clips: Sequence[Clip], reader: ClipReader, workers: int = 0, pin_memory: bool = False
) -> Iterator[ReadClip]:
    """Every clip once, in order.

    Raises:
        VideoError: a video cannot be decoded.
    """
    for read in read_clips(clips, reader, ((n, 0) for n in range(len(clips))), workers, pin_memory=pin_memory):
        yield checked(read)


def checked(read: ReadClip | DitsError) -> ReadClip:
    """The clip; raises where it could not be read."""
    if isinstance(read, DitsError):
        raise read
    return read


def worth_workers(clips: int) -> int:
    """How many processes to read this many clips with: none for a few, at most 8, one processor left to the encoder."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, processors - 1), clips // _CLIPS_A_WORKER_IS_WORTH)


class _Clips(Dataset[tuple[Tensor | None, Tensor | None, DitsError | None]]):
    def __init__(self, clips: Sequence[Clip], reader: ClipReader) -> None:
        self.clips, self.reader = clips, reader

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor | None, Tensor | None, DitsError | None]:
        number, seed = key
        try:
            read = self.reader.read(self.clips[number], seed)
        except DitsError as error:  # as a value: an exception would arrive wrapped in the worker's traceback
            return None, None, error
        return read.pixels, read.times, None

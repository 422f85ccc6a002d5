"""The batches of an epoch on cached embeddings. No batch holds a video twice: its captions would be false negatives."""

import math
from collections.abc import Iterator

import numpy as np


def batches(video_of: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """The batches of one epoch, as caption numbers: every caption once, and no video twice in a batch.

    The captions are divided into rounds that hold each video at most once. A round is split into batches of about the
    same size, at most `batch_size`. A single pair has no negatives: it joins another batch, and a round of one caption
    is left out.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(video_of))
    seen: dict[int, int] = {}
    rounds: dict[int, list[int]] = {}
    for caption in order:
        video = int(video_of[caption])
        seen[video] = seen.get(video, 0) + 1
        rounds.setdefault(seen[video], []).append(int(caption))
    for number in sorted(rounds):
        members = rounds[number]
        if len(members) > 1:
            count = min(math.ceil(len(members) / batch_size), len(members) // 2)
            yield from np.array_split(np.array(members), count)


def drawn_batches(video_of: np.ndarray, batch_size: int, seed: int, captions: int) -> Iterator[np.ndarray]:
    """The batches of an epoch of some captions, as caption numbers: all of `batch_size`, and no video twice in a batch.

    Captions are taken in random order. One whose video is in the batch already is passed over; when all have been taken
    or passed over, they start again in another order.

    Args:
        video_of: the video of each caption (N,).
        batch_size: captions in a batch; fewer if there are fewer videos.
        captions: captions of the epoch, rounded down to whole batches, but to one at least.
    """
    rng = np.random.default_rng(seed)
    size = min(batch_size, len(np.unique(video_of)))
    if size < 2:  # a single pair has no negatives
        return
    order = _repeated(video_of, rng)
    for _ in range(max(1, captions // size)):
        batch: dict[int, int] = {}  # the caption of each video
        while len(batch) < size:
            caption, video = next(order)
            batch.setdefault(video, caption)
        yield np.array(list(batch.values()))


def _repeated(video_of: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """All captions with their videos, again and again, each time in another order."""
    while True:
        order = rng.permutation(len(video_of))
        yield from zip(order.tolist(), video_of[order].tolist(), strict=True)

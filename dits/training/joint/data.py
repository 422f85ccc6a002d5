"""The data of a joint training: its clips, and the batches of all its steps."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dits.common.errors import InputError
from dits.common.files import sha256_of_json
from dits.corpora.corpus import FRAMES, Clip, Corpus
from dits.corpora.decode_check import undecodable
from dits.encoders.openclip import OpenClipEncoder
from dits.training.joint.config import JointTrainingConfig
from dits.training.joint.distributed import World

EPOCH, STEP, CLIP = range(3)
"""The uses of a derived seed: the first number of `derived_seed` after the run's seed."""


@dataclass(frozen=True)
class JointData:
    """The clips of a joint training.

    Attributes:
        train: clips to train on.
        evaluation: clips whose retrieval metrics select the weights.
        skipped: for the ids of clips that are left out, the reason why they cannot be decoded.
    """

    train: tuple[Clip, ...]
    evaluation: tuple[Clip, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A checksum of clips, splits and captions."""
        return sha256_of_json([[clip.id, clip.split, *clip.captions] for clip in (*self.train, *self.evaluation)])


def joint_data(corpus: Corpus, config: JointTrainingConfig, encoder: OpenClipEncoder, world: World) -> JointData:
    """The clips of a corpus to train and select on, without undecodable ones if `config.undecodable` is "skip".

    A file may crash or hang its decoder. Therefore each is decoded in a separate process, with as many frames as
    training reads.

    Raises:
        InputError: a split is empty, or no clip of it can be decoded.
    """
    train, evaluation = (tuple(corpus.split(split).clips) for split in ("train", config.select_on))
    if config.undecodable == "error":
        return JointData(train, evaluation)
    own = (*train, *evaluation)[world.rank :: world.size]
    workers, size = max(1, config.workers), min(encoder.transform.size)
    reasons = undecodable(own, None, workers, config.decode_seconds, max(config.frames, FRAMES), size)
    skipped = {name: reason for part in world.from_all(reasons) for name, reason in part.items()}
    train, evaluation = (tuple(c for c in clips if c.id not in skipped) for clips in (train, evaluation))
    if not (train and evaluation):
        raise InputError(f"No video of a split of corpus '{corpus.name}' can be decoded: check its files.")
    return JointData(train, evaluation, dict(sorted(skipped.items())))


def plan_steps(video_of: np.ndarray, config: JointTrainingConfig) -> tuple[list[np.ndarray], set[int], list[int]]:
    """The batches of all steps, the steps after which to evaluate, and the last step of every epoch."""
    plan: list[np.ndarray] = []
    evaluate_after: set[int] = set()
    epoch_ends: list[int] = []
    for epoch in range(config.epochs):
        seed = derived_seed(config.seed, EPOCH, epoch)
        batches = full_batches(video_of, config.batch_size, seed, config.distinct_videos)
        parts = range(1, config.evaluations + 1)
        evaluate_after |= {len(plan) + math.ceil(len(batches) * part / config.evaluations) for part in parts}
        plan += batches
        epoch_ends.append(len(plan))
    if config.max_steps and config.max_steps < len(plan):
        plan = plan[: config.max_steps]
        evaluate_after.add(len(plan))
    return plan, evaluate_after, epoch_ends


def full_batches(video_of: np.ndarray, batch_size: int, seed: int, distinct: bool = True) -> list[np.ndarray]:
    """The batches of one epoch, as caption numbers in random order, all of size `batch_size`.

    If `distinct`, a caption whose video is already in a batch is moved to the next one. Captions that cannot fill a
    batch at the end are left out of this epoch.

    Raises:
        InputError: not even one batch can be filled.
    """
    order = np.random.default_rng(seed).permutation(len(video_of))
    count = len(np.unique(video_of)) if distinct else len(video_of)
    if count < batch_size:
        items = "videos" if distinct else "captions"
        raise InputError(
            f"A batch of {batch_size} cannot be filled from {count} {items}: choose a smaller --batch-size."
        )
    if not distinct:
        return list(order[: len(order) // batch_size * batch_size].reshape(-1, batch_size))
    batches: list[np.ndarray] = []
    waiting = deque(order.tolist())
    while True:
        batch: list[int] = []
        videos: set[int] = set()
        later: list[int] = []
        while waiting and len(batch) < batch_size:
            caption = waiting.popleft()
            if video_of[caption] in videos:
                later.append(caption)
            else:
                batch.append(caption)
                videos.add(video_of[caption])
        if len(batch) < batch_size:
            return batches
        batches.append(np.array(batch))
        waiting.extendleft(reversed(later))


def derived_seed(*numbers: int) -> int:
    """A seed below 2^32 that is derived from numbers; other numbers give another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])

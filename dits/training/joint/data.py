"""What a joint training reads: its clips, and the batches of all its steps."""

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
"""What a seed is derived for."""


@dataclass(frozen=True)
class JointData:
    """What a joint training reads.

    Attributes:
        train: clips to train on.
        evaluation: clips whose retrieval selects the weights.
        skipped: why clips could not be decoded and are left out, by their ids.
    """

    train: tuple[Clip, ...]
    evaluation: tuple[Clip, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A checksum of clips, splits and captions."""
        return sha256_of_json([[clip.id, clip.split, *clip.captions] for clip in (*self.train, *self.evaluation)])


def joint_data(corpus: Corpus, config: JointTrainingConfig, encoder: OpenClipEncoder, world: World) -> JointData:
    """The clips of a corpus to train and select on; those that cannot be decoded left out where the config says so.

    A file may crash or hang its decoder: each is tried in a process apart, with as many frames as training reads.

    Raises:
        InputError: a split is empty, or nothing of it can be decoded.
    """
    train, evaluation = (tuple(corpus.split(split).clips) for split in ("train", config.select_on))
    if config.undecodable == "error":
        return JointData(train, evaluation)
    clips = (*train, *evaluation)
    own = clips[world.rank :: world.size]
    workers, size = max(1, config.workers), min(encoder.transform.size)
    found = undecodable(own, None, workers, config.decode_seconds, max(config.frames, FRAMES), size)
    skipped = {name: reason for part in world.from_all(found) for name, reason in part.items()}
    kept = [tuple(clip for clip in part if clip.id not in skipped) for part in (train, evaluation)]
    if not all(kept):
        raise InputError(f"No video of a split of corpus '{corpus.name}' can be decoded: check its files.")
    return JointData(kept[0], kept[1], dict(sorted(skipped.items())))


def plan_steps(video_of: np.ndarray, config: JointTrainingConfig) -> tuple[list[np.ndarray], set[int], list[int]]:
    """The batches of all steps, the steps after which to evaluate, and the last step of every epoch."""
    plan: list[np.ndarray] = []
    evaluated_at: set[int] = set()
    epoch_ends: list[int] = []
    for epoch in range(config.epochs):
        seed = derived_seed(config.seed, EPOCH, epoch)
        batches = full_batches(video_of, config.batch_size, seed, config.distinct_videos)
        parts = range(1, config.evaluations + 1)
        evaluated_at |= {len(plan) + math.ceil(len(batches) * part / config.evaluations) for part in parts}
        plan += batches
        epoch_ends.append(len(plan))
    if config.max_steps and config.max_steps < len(plan):
        plan = plan[: config.max_steps]
        evaluated_at.add(len(plan))
    return plan, evaluated_at, epoch_ends


def full_batches(video_of: np.ndarray, batch_size: int, seed: int, distinct: bool = True) -> list[np.ndarray]:
    """One epoch's batches of caption numbers, all of `batch_size`, in random order.

    A caption whose video is in a batch already waits for the next one, where `distinct`. Captions that fill no batch at
    the end are left out of this epoch.

    Raises:
        InputError: not even one batch can be filled.
    """
    order = np.random.default_rng(seed).permutation(len(video_of))
    kinds = len(np.unique(video_of)) if distinct else len(video_of)
    if kinds < batch_size:
        what = "videos" if distinct else "captions"
        raise InputError(
            f"A batch of {batch_size} cannot be filled from {kinds} {what}: choose a smaller --batch-size."
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
    """A seed, from 0 to below 2^32, that follows from numbers and differs where they do."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])

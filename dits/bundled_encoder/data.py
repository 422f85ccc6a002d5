"""The encoder's training data: pairs as features or pictures, the image tower's classes, and sampling of batches.

Photographs and drawings are sampled into separate batches: a drawing is an easy negative for a photograph, from which
the encoder would learn little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.bundled_encoder.config import CLASSES, DRAWINGS
from dits.bundled_encoder.pairs.drawings import HELD_OUT_STAMPS
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, pictures_digest, read_shards
from dits.bundled_encoder.pictures import Augmentation, cached_tensor, tower_features
from dits.common.errors import PairsError
from dits.common.files import cache_root, sha256_of_json
from dits.corpora.corpus import FRAMES, Corpus, Progress
from dits.encoders.towers import IMAGE_SIZE
from dits.video.sampling import sample_frames

BACKDROPS = "demo"  # some drawings get a blurred picture of this source as a backdrop

_VIEWS_SEED = 24  # of the views with cached features: the same for every training seed
_PART_SIZE = 512  # pictures


@dataclass(frozen=True)
class ValidationClips:
    """Clips with captions: frame features (V, FRAMES, 1280), encoded frames, captions, and the clip of each caption."""

    captions: list[str]
    clip_of: np.ndarray
    features: Tensor
    pictures: tuple[bytes, ...]


class TrainingPairs:
    """Pairs with the features of their pictures (N, views, 1280) in float16, and the first picture of each pair."""

    def __init__(self, pairs: Sequence[Pair], features: Tensor, balance: float) -> None:
        """With a `balance` of 0, every pair is drawn equally often; with 1, every source is."""
        self.sources = np.array([pair.source for pair in pairs])
        self.texts = [pair.texts for pair in pairs]
        self.pictures = [data for pair in pairs for data in pair.pictures]
        self.counts = np.array([len(pair.pictures) for pair in pairs], dtype=int)
        self.starts = np.cumsum(self.counts) - self.counts
        self.features = features
        self._balance = balance

    def members(self, sources: Sequence[str]) -> np.ndarray:
        """The numbers of all pairs of some sources."""
        return np.flatnonzero(np.isin(self.sources, sources))

    def draw(self, sources: Sequence[str], size: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of at most `size` different pairs of some sources, balanced by source."""
        members = self.members(sources)
        if not len(members):
            return members
        _, inverse, counts = np.unique(self.sources[members], return_inverse=True, return_counts=True)
        weights = counts[inverse] ** -self._balance
        return rng.choice(members, size=min(size, len(members)), replace=False, p=weights / weights.sum())

    def draw_texts(self, rows: np.ndarray, word_dropout: float, rng: np.random.Generator) -> list[str]:
        """One text of each pair, with random words dropped; at least two words stay."""
        texts = [self.texts[row][rng.integers(len(self.texts[row]))] for row in rows]
        return [drop_words(text, word_dropout, rng) for text in texts]

    def draw_pictures(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The number of one picture of each pair."""
        return self.starts[rows] + rng.integers(self.counts[rows])

    def draw_features(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Mean features (B, 1280) of two random views of each pair, each of a random picture, in float32."""
        first, second = (
            self.features[self.draw_pictures(rows, rng), rng.integers(self.features.shape[1], size=len(rows))]
            for _ in range(2)
        )
        return (first.float() + second.float()) / 2

    def mean_features(self, rows: np.ndarray) -> Tensor:
        """Mean features (B, 1280) over all views and pictures of each pair."""
        means = self.features.float().mean(dim=1)
        return torch.stack([means[self.starts[row] : self.starts[row] + self.counts[row]].mean(dim=0) for row in rows])


@dataclass(frozen=True)
class ClassPrototypes:
    """The image tower's ImageNet classes: classifier rows (1000, 1280) as features, names and definitions as texts."""

    rows: Tensor
    texts: list[tuple[str, str]]

    @classmethod
    def of(cls, classifier: Tensor, photographs: Tensor) -> "ClassPrototypes":
        """Gives classifier rows the mean norm of photograph features (N, 1280), then shifts them to the same mean."""
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        texts = [(info.index_to_description(i), info.index_to_description(i, detailed=True)) for i in range(1000)]
        rows = F.normalize(classifier, dim=-1) * photographs.norm(dim=-1).mean()
        return cls(rows - rows.mean(dim=0) + photographs.mean(dim=0), texts)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Drops each word with probability `share`, unless the text has under four words or fewer than two would stay."""
    words = text.split()
    if not share or len(words) < 4:
        return text
    kept = [word for word, chance in zip(words, rng.random(len(words)), strict=True) if chance >= share]
    return " ".join(kept) if len(kept) >= 2 else text


def load_pairs(folder: Path, sources: Sequence[str]) -> list[Pair]:
    """The training pairs of some sources: all but the held-out stamps.

    Raises:
        PairsError: the shards are missing or damaged, or have no pair of one of the sources.
    """
    pairs = [pair for pair in read_shards(folder) if pair.source in sources and not is_held_out(pair)]
    missing = [source for source in sources if source != CLASSES and all(pair.source != source for pair in pairs)]
    if missing:
        raise PairsError(f"{folder} holds no pairs of {', '.join(missing)}: prepare them, or train without.")
    return pairs


def is_held_out(pair: Pair) -> bool:
    """Whether a pair is one of the stamps that are held out for the zero-shot test."""
    return pair.source == "stamps" and any(
        pair.group == name or pair.group.startswith(f"{name}/") for name in HELD_OUT_STAMPS
    )


def pair_features(trunk: Any, pairs: Sequence[Pair], crops: int, progress: Progress) -> Tensor:
    """Features (N, 1 + crops, 1280) of all pictures, cached in parts whose names are checksums of their pictures.

    A part takes about a minute on two cores, which an interruption loses at most.
    """
    backdrops = [pair.pictures[0] for pair in pairs if pair.source == BACKDROPS]
    backdrops_digest = pictures_digest(backdrops)
    total = sum(len(pair.pictures) for pair in pairs)
    parts: list[Tensor] = []
    for source, members in groupby(pairs, key=lambda pair: pair.source):
        pictures = [data for pair in members for data in pair.pictures]
        for start in range(0, len(pictures), _PART_SIZE):
            part = pictures[start : start + _PART_SIZE]
            key = {
                "pictures": pictures_digest(part),
                "backdrops": backdrops_digest if source in DRAWINGS else None,
                "crops": crops,
                "seed": _VIEWS_SEED,
                "size": IMAGE_SIZE,
                "v": 2,
            }
            before = sum(len(rows) for rows in parts)
            path = cache_root() / "encoder-training" / f"{source}-{sha256_of_json(key)[:12]}.safetensors"
            augment = Augmentation(backdrops, _VIEWS_SEED)
            report = partial(_report_total, progress, before, total)
            make = partial(tower_features, trunk, part, crops, augment, report)
            parts.append(cached_tensor(path, "features", make))
    return torch.cat(parts)


def validation_clips(trunk: Any, corpus: Corpus, progress: Progress) -> ValidationClips:
    """The clips of a corpus with their features, from the encoder's plain view of each frame."""
    from PIL import Image

    frames = (
        frame
        for clip in corpus
        for frame in sample_frames(clip.path, FRAMES, size=320, start=clip.start, end=clip.end).frames
    )
    pictures = tuple(encode_picture(Image.fromarray(frame)) for frame in frames)
    key = sha256_of_json({"pictures": pictures_digest(pictures), "size": IMAGE_SIZE, "v": 3})
    path = cache_root() / "encoder-training" / f"{key[:12]}.safetensors"
    features = cached_tensor(path, "features", lambda: tower_features(trunk, pictures, 0, None, progress))
    return ValidationClips(
        captions=[caption for clip in corpus for caption in clip.captions],
        clip_of=np.array([index for index, clip in enumerate(corpus) for _ in clip.captions]),
        features=features.float().view(len(corpus), FRAMES, -1),
        pictures=pictures,
    )


def _report_total(progress: Progress, before: int, total: int, done: int, _part_total: int) -> None:
    progress(before + done, total)

"""What the encoder learns from: pairs as features or pictures, the image tower's classes, and drawing batches of them.

Photographs and drawings are drawn into batches of their own: among each other a drawing and a photograph are told
apart at a glance, and would teach little.
"""

from collections.abc import Callable, Sequence
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
from dits.bundled_encoder.pictures import Augmentation, cached_features, tower_features
from dits.common.errors import PairsError
from dits.common.files import cache_root, sha256_of_json
from dits.corpora.corpus import FRAMES, Corpus
from dits.encoders.towers import IMAGE_SIZE
from dits.video.sampling import sample_frames

BACKDROPS = "demo"  # whose pictures, blurred, some drawings are put before

Progress = Callable[[int, int], None]

_VIEWS_SEED = 24  # of the views whose features are kept: the same for every seed of training
_PICTURES_IN_A_PART = 512


@dataclass(frozen=True)
class Captioned:
    """Clips with captions for validation: frame features (V, FRAMES, 1280), captions and each caption's clip."""

    captions: list[str]
    clip_of: np.ndarray
    features: Tensor
    pictures: tuple[bytes, ...]


class TrainingPairs:
    """Pairs with the features of their pictures: (N, views, 1280) float16, and where each pair's pictures begin."""

    def __init__(self, pairs: Sequence[Pair], features: Tensor, balance: float) -> None:
        """`balance` in 0..1: 0 draws every pair equally often, 1 every source."""
        self.sources = np.array([pair.source for pair in pairs])
        self.texts = [pair.texts for pair in pairs]
        self.pictures = [data for pair in pairs for data in pair.pictures]
        self.counts = np.array([len(pair.pictures) for pair in pairs], dtype=int)
        self.starts = np.cumsum(self.counts) - self.counts
        self.features = features
        self._balance = balance

    def members(self, sources: Sequence[str]) -> np.ndarray:
        """The numbers of the pairs of some sources."""
        return np.flatnonzero(np.isin(self.sources, sources))

    def draw(self, sources: Sequence[str], size: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of different pairs of some sources, `size` or as many as there are, balanced by source."""
        members = self.members(sources)
        if not len(members):
            return members
        _, inverse, counts = np.unique(self.sources[members], return_inverse=True, return_counts=True)
        weights = counts[inverse] ** -self._balance
        return rng.choice(members, size=min(size, len(members)), replace=False, p=weights / weights.sum())

    def draw_texts(self, rows: np.ndarray, word_dropout: float, rng: np.random.Generator) -> list[str]:
        """One text of each pair, of which words are dropped at random (two always stay)."""
        texts = [self.texts[row][rng.integers(len(self.texts[row]))] for row in rows]
        return [drop_words(text, word_dropout, rng) for text in texts]

    def draw_pictures(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The number of one picture of each pair."""
        return self.starts[rows] + rng.integers(self.counts[rows])

    def draw_features(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Features (B, 1280): the mean of two views, of two frames where a pair has several, in float32."""
        picked = [
            self.features[self.draw_pictures(rows, rng), rng.integers(self.features.shape[1], size=len(rows))]
            for _ in range(2)
        ]
        return (picked[0].float() + picked[1].float()) / 2

    def mean_features(self, rows: np.ndarray) -> Tensor:
        """Features (B, 1280) of each pair's pictures as the encoder sees them, averaged over all views."""
        means = self.features.float().mean(dim=1)
        return torch.stack([means[self.starts[row] : self.starts[row] + self.counts[row]].mean(dim=0) for row in rows])


@dataclass(frozen=True)
class ClassPrototypes:
    """The image tower's ImageNet classes: classifier rows (1000, 1280) as pictures, names and glosses as texts."""

    rows: Tensor
    texts: list[tuple[str, str]]

    @classmethod
    def of(cls, classifier: Tensor, photographs: Tensor) -> "ClassPrototypes":
        """From the classifier, its rows scaled and moved to where the features (N, 1280) of photographs lie."""
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        texts = [(info.index_to_description(i), info.index_to_description(i, detailed=True)) for i in range(1000)]
        rows = F.normalize(classifier, dim=-1) * photographs.norm(dim=-1).mean()
        return cls(rows - rows.mean(dim=0) + photographs.mean(dim=0), texts)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """The text without each word with probability `share`; at least two words stay."""
    words = text.split()
    if not share or len(words) < 4:
        return text
    kept = [word for word, chance in zip(words, rng.random(len(words)), strict=True) if chance >= share]
    return " ".join(kept) if len(kept) >= 2 else text


def load_pairs(folder: Path, sources: Sequence[str]) -> list[Pair]:
    """The pairs of some sources that may be trained on: everything but the held-out stamps.

    Raises:
        PairsError: the shards are missing or damaged, or hold nothing of a source that is asked for.
    """
    pairs = [pair for pair in read_shards(folder) if pair.source in sources and not is_held_out(pair)]
    missing = [source for source in sources if source != CLASSES and all(pair.source != source for pair in pairs)]
    if missing:
        raise PairsError(f"{folder} holds no pairs of {', '.join(missing)}: prepare them, or train without.")
    return pairs


def is_held_out(pair: Pair) -> bool:
    """Whether a pair belongs to the stamps that only the zero-shot test sees."""
    return pair.source == "stamps" and any(
        pair.group == name or pair.group.startswith(f"{name}/") for name in HELD_OUT_STAMPS
    )


def pair_features(trunk: Any, pairs: Sequence[Pair], crops: int, progress: Progress) -> Tensor:
    """Features (N, 1 + crops, 1280) of all pictures, kept in the cache folder in parts named by what they show.

    A part is a minute's work on two cores: that is what an interruption loses.
    """
    backdrops = [pair.pictures[0] for pair in pairs if pair.source == BACKDROPS]
    backdrops_digest = pictures_digest(backdrops)
    total = sum(len(pair.pictures) for pair in pairs)
    parts: list[Tensor] = []
    for source, members in groupby(pairs, key=lambda pair: pair.source):
        pictures = [data for pair in members for data in pair.pictures]
        for start in range(0, len(pictures), _PICTURES_IN_A_PART):
            part = pictures[start : start + _PICTURES_IN_A_PART]
            key = {
                "pictures": pictures_digest(part),
                "backdrops": backdrops_digest if source in DRAWINGS else None,
                "crops": crops,
                "seed": _VIEWS_SEED,
                "size": IMAGE_SIZE,
                "v": 2,
            }
            done = sum(len(rows) for rows in parts)
            path = cache_root() / "encoder-training" / f"{source}-{sha256_of_json(key)[:12]}.safetensors"
            augment = Augmentation(backdrops, _VIEWS_SEED)
            report = partial(_report_further, progress, done, total)
            parts.append(cached_features(path, partial(tower_features, trunk, part, crops, augment, report)))
    return torch.cat(parts)


def validation_clips(trunk: Any, corpus: Corpus, progress: Progress) -> Captioned:
    """The clips of a corpus as the encoder sees them."""
    from PIL import Image

    frames = (
        frame
        for clip in corpus
        for frame in sample_frames(clip.path, FRAMES, size=320, start=clip.start, end=clip.end).frames
    )
    pictures = tuple(encode_picture(Image.fromarray(frame)) for frame in frames)
    key = sha256_of_json({"pictures": pictures_digest(pictures), "size": IMAGE_SIZE, "v": 3})
    path = cache_root() / "encoder-training" / f"{key[:12]}.safetensors"
    features = cached_features(path, lambda: tower_features(trunk, pictures, 0, None, progress))
    return Captioned(
        captions=[caption for clip in corpus for caption in clip.captions],
        clip_of=np.array([index for index, clip in enumerate(corpus) for _ in clip.captions]),
        features=features.float().view(len(corpus), FRAMES, -1),
        pictures=pictures,
    )


def _report_further(progress: Progress, before: int, total: int, done: int, _part: int) -> None:
    """Progress of a part, told as progress of the whole."""
    progress(before + done, total)

"""The encoder's training data: pairs as features or pictures, the image tower's classes, and sampling of batches.

Photographs and drawings are sampled into separate batches: a drawing is an easy negative for a photograph, from which
the encoder would learn little.
"""

import hashlib
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

from dits.bundled_encoder.config import CLASSES, DRAWINGS, PHOTOS, parse_fold
from dits.bundled_encoder.pairs.drawings import HELD_OUT_STAMPS
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, pictures_digest, read_shards
from dits.bundled_encoder.pictures import Augmentation, cached_tensors, tower_features
from dits.common.errors import PairsError
from dits.common.files import cache_root, sha256_of_json
from dits.corpora.corpus import FRAMES, Corpus, Progress
from dits.encoders.towers import IMAGE_SIZE
from dits.video.sampling import sample_frames

BACKDROPS = "demo"  # some drawings get a blurred picture of this source as a backdrop

_VIEWS_SEED = 24  # of the views with cached features: the same for every training seed
_PART_SIZE = 512  # pictures
_NEIGHBOUR_BLOCK = 1024  # pairs


@dataclass(frozen=True)
class TowerRows:
    """What the pretrained image tower computes of views of pictures, by the number of the view.

    Attributes:
        features: (R, 1280) before the projection, float16.
        maps: the input of the tower's last `upper` stages, in parts (R', C, H, W) mapped from files, float16.
        crops: the number of random views of a still.
        upper: the number of stages above the maps; 0 if there are none.
    """

    features: Tensor
    maps: tuple[Tensor, ...]
    crops: int
    upper: int

    @classmethod
    def of(cls, parts: Sequence[dict[str, Tensor]], crops: int, upper: int) -> "TowerRows":
        """Rows of `tower_features`, part by part."""
        features = torch.cat([part["features"] for part in parts])
        return cls(features, tuple(part["maps"] for part in parts) if upper else (), crops, upper)

    def select_maps(self, numbers: np.ndarray) -> Tensor:
        """The maps (B, C, H, W) of some views, in float32 and channels-last order."""
        ends = np.cumsum([len(part) for part in self.maps])
        owners = np.searchsorted(ends, numbers, side="right")
        starts = ends - [len(part) for part in self.maps]
        places = zip(owners.tolist(), (numbers - starts[owners]).tolist(), strict=True)
        maps = torch.stack([self.maps[part][row] for part, row in places])
        return maps.float().contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ValidationClips:
    """Clips with captions.

    Attributes:
        name: of their corpus.
        captions: of all clips.
        clip_of: the clip of each caption.
        frames: the distinct frames of all clips.
        frame_of: (V, FRAMES) the number of the distinct frame that is a clip's n-th frame.
        pictures: the distinct frames, encoded.
    """

    name: str
    captions: list[str]
    clip_of: np.ndarray
    frames: TowerRows
    frame_of: Tensor
    pictures: tuple[bytes, ...]


class TrainingPairs:
    """Pairs with what the image tower computes of all views of their pictures."""

    def __init__(self, pairs: Sequence[Pair], rows: TowerRows, balance: float, fold: str = "") -> None:
        """`rows` are the views in the order of the pairs' pictures; the rest is as in `EncoderTrainingConfig`."""
        self.left_out = np.array([in_fold(pair, fold) for pair in pairs])
        self.sources = np.array([pair.source for pair in pairs])
        self.texts = [pair.texts for pair in pairs]
        self.pictures = [data for pair in pairs for data in pair.pictures]
        self.counts = np.array([len(pair.pictures) for pair in pairs], dtype=int)
        self.starts = np.cumsum(self.counts) - self.counts
        self.rows = rows
        self._views = np.array([sum(views_of(pair, rows.crops)) for pair in pairs], dtype=int)
        self._first_view = np.cumsum(self._views) - self._views
        self._balance = balance
        self._neighbours: dict[int, np.ndarray] = {}

    def members(self, sources: Sequence[str]) -> np.ndarray:
        """The numbers of all pairs of some sources, but for those of the fold that is left out."""
        return np.flatnonzero(np.isin(self.sources, sources) & ~self.left_out)

    def share(self, sources: Sequence[str]) -> float:
        """The weight of some sources when a batch is divided among groups of sources."""
        counts = np.unique(self.sources[self.members(sources)], return_counts=True)[1]
        return float((counts.astype(float) ** (1 - self._balance)).sum())

    def find_neighbours(self, texts: Tensor, sources: Sequence[str], count: int = 32) -> None:
        """Finds the `count` neighbours of each pair of some sources by the cosine of their texts (N, d), one a pair."""
        members = self.members(sources)
        unit = F.normalize(texts[torch.from_numpy(members)], dim=-1)
        for start in range(0, len(members), _NEIGHBOUR_BLOCK):
            cosines = unit[start : start + _NEIGHBOUR_BLOCK] @ unit.T
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -torch.inf
            nearest = cosines.topk(min(count, len(members) - 1), dim=1).indices.numpy()
            self._neighbours |= dict(zip(members[start : start + len(cosines)].tolist(), members[nearest], strict=True))

    def draw(self, sources: Sequence[str], size: int, rng: np.random.Generator, hard: float = 0.0) -> np.ndarray:
        """Numbers of at most `size` different pairs of some sources, balanced by source.

        A share `hard` of them are random neighbours (`find_neighbours`) of the others: hard negatives.
        """
        members = self.members(sources)
        if not len(members):
            return members
        _, inverse, counts = np.unique(self.sources[members], return_inverse=True, return_counts=True)
        weights = counts[inverse] ** -self._balance
        size = min(size, len(members))
        seeds = rng.choice(members, size=size - int(hard * size), replace=False, p=weights / weights.sum())
        if len(seeds) == size:
            return seeds
        pool = np.setdiff1d(np.concatenate([self._neighbours[seed] for seed in seeds.tolist()]), seeds)
        hardest = rng.choice(pool, size=min(size - len(seeds), len(pool)), replace=False)
        return np.concatenate([seeds, hardest])

    def draw_texts(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        """One text of each pair."""
        return [self.texts[row][rng.integers(len(self.texts[row]))] for row in rows]

    def draw_pictures(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The number of one picture of each pair."""
        return self.starts[rows] + rng.integers(self.counts[rows])

    def draw_views(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Two random views of each pair, different ones if it has two: (B,) and (B,) numbers of kept views."""
        first = rng.integers(self._views[rows])
        second = (first + 1 + rng.integers(np.maximum(self._views[rows] - 1, 1))) % self._views[rows]
        return self._first_view[rows] + first, self._first_view[rows] + second

    def draw_features(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Mean features (B, 1280) of two random views of each pair, in float32."""
        first, second = (self.rows.features[torch.from_numpy(views)].float() for views in self.draw_views(rows, rng))
        return (first + second) / 2

    def mean_features(self, rows: np.ndarray) -> Tensor:
        """Mean features (B, 1280) over all views of each pair."""
        spans = zip(self._first_view[rows], self._views[rows], strict=True)
        return torch.stack([self.rows.features[start : start + count].float().mean(dim=0) for start, count in spans])


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


def same_text(texts: Sequence[str]) -> Tensor | None:
    """(B, B), True off the diagonal where two of B texts are the same, so no negatives; None if none are."""
    _, numbers = np.unique(np.array(texts), return_inverse=True)
    same = numbers[:, None] == numbers
    np.fill_diagonal(same, False)
    return torch.from_numpy(same) if same.any() else None


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


def in_fold(pair: Pair, fold: str) -> bool:
    """Whether a pair is a photograph of a fold ("k/K"); a group of a source is never divided. No pair is in fold ""."""
    if not fold or pair.source not in PHOTOS:
        return False
    number, count = parse_fold(fold)
    digest = hashlib.sha256(f"{pair.source}/{pair.group}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") % count == number - 1


def is_held_out(pair: Pair) -> bool:
    """Whether a pair is one of the stamps that are held out for the zero-shot test."""
    return pair.source == "stamps" and any(
        pair.group == name or pair.group.startswith(f"{name}/") for name in HELD_OUT_STAMPS
    )


def views_of(pair: Pair, crops: int) -> list[int]:
    """The number of kept views of each picture of a pair: frames of a clip are views already, a still gets crops."""
    return [1 + crops] if len(pair.pictures) == 1 else [1] * len(pair.pictures)


def pair_rows(trunk: Any, pairs: Sequence[Pair], crops: int, upper: int, progress: Progress) -> TowerRows:
    """The views of all pictures, cached in parts whose names are checksums of their pictures.

    A part takes under a minute on two cores, which an interruption loses at most.
    """
    backdrops = [pair.pictures[0] for pair in pairs if pair.source == BACKDROPS]
    backdrops_digest = pictures_digest(backdrops)
    total = sum(len(pair.pictures) for pair in pairs)
    parts: list[dict[str, Tensor]] = []
    done = 0
    for source, members in groupby(pairs, key=lambda pair: pair.source):
        listed = [
            (data, views - 1)
            for pair in members
            for data, views in zip(pair.pictures, views_of(pair, crops), strict=True)
        ]
        for start in range(0, len(listed), _PART_SIZE):
            part, counts = zip(*listed[start : start + _PART_SIZE], strict=True)
            key = {
                "pictures": pictures_digest(part),
                "backdrops": backdrops_digest if source in DRAWINGS and crops else None,
                "crops": counts,
                "seed": _VIEWS_SEED,
                "size": IMAGE_SIZE,
                "upper": upper,
                "v": 4,
            }
            path = cache_root() / "encoder-training" / f"{source}-{sha256_of_json(key)[:12]}.safetensors"
            augment = Augmentation(backdrops, _VIEWS_SEED)
            report = partial(_report_total, progress, done, total)
            parts.append(cached_tensors(path, partial(tower_features, trunk, part, counts, augment, report, upper)))
            done += len(part)
    return TowerRows.of(parts, crops, upper)


def validation_clips(trunk: Any, corpus: Corpus, upper: int, progress: Progress) -> ValidationClips:
    """The clips of a corpus, with what the image tower computes of the plain view of each distinct frame."""
    from PIL import Image

    pictures: list[bytes] = []
    frame_of = []
    for clip in corpus:
        sampled = sample_frames(clip.path, FRAMES, size=320, start=clip.start, end=clip.end)
        _, first, numbers = np.unique(sampled.times, return_index=True, return_inverse=True)
        frame_of.append(numbers + len(pictures))
        pictures += [encode_picture(Image.fromarray(sampled.frames[number])) for number in first]
    key = sha256_of_json({"pictures": pictures_digest(pictures), "size": IMAGE_SIZE, "upper": upper, "v": 4})
    path = cache_root() / "encoder-training" / f"{key[:12]}.safetensors"
    make = partial(tower_features, trunk, pictures, [0] * len(pictures), None, progress, upper)
    return ValidationClips(
        name=corpus.name,
        captions=[caption for clip in corpus for caption in clip.captions],
        clip_of=np.array([index for index, clip in enumerate(corpus) for _ in clip.captions]),
        frames=TowerRows.of([cached_tensors(path, make)], 0, upper),
        frame_of=torch.from_numpy(np.stack(frame_of)),
        pictures=tuple(pictures),
    )


def _report_total(progress: Progress, before: int, total: int, done: int, _part_total: int) -> None:
    progress(before + done, total)

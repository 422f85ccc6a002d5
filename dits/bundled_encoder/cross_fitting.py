"""Cross-fitting: pairs embedded by encoders that were trained without them, for heads that train on unseen pairs.

An encoder has memorised its training pairs: there, a caption is closer to its video than any unseen caption to its own.
A head that trains on such pairs has nothing left to align. So the photographs are divided into K folds; for each, an
encoder is trained on the others (`EncoderTrainingConfig.fold`) and embeds the fold. An orthogonal map, which keeps all
cosines and norms, brings these embeddings into the space of the encoder that the head will be used with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.bundled_encoder.config import MAX_KEPT, PHOTOS, EncoderTrainingConfig, parse_fold
from dits.bundled_encoder.data import TowerRows, in_fold, load_pairs, pair_rows, views_of
from dits.bundled_encoder.pair_embeddings import concatenate, embed_kept
from dits.bundled_encoder.pairs.shards import Pair
from dits.common.errors import InputError, require
from dits.common.files import parse_json
from dits.corpora.corpus import Progress
from dits.encoders.openclip import OpenClipEncoder, load_encoder
from dits.training.trainer import PairData

_ANCHORS = 1000  # pairs that fix the map between two encoders


def cross_fitted_pairs(
    folder: Path,
    sources: Sequence[str],
    encoder: OpenClipEncoder,
    folds: Sequence[Path],
    progress: Progress | None = None,
) -> PairData:
    """Embeds photographs, each by the encoder that was trained without it, in the space of `encoder`.

    Args:
        folder: the folder of shards.
        sources: the sources to embed; all are photographs.
        encoder: the encoder that the head will be used with, trained on all folds.
        folds: the folders of the encoders of all K folds, in any order, as `train encoder --fold k/K` wrote them.
        progress: called with the number of pictures whose views are kept, and the total.

    Raises:
        InputError: a source has drawings; a folder has no encoder with a fold, or the folds are not 1/K to K/K.
        PairsError: see `load_pairs`.
        EncoderError: an encoder cannot be loaded.
    """
    other = [name for name in sources if name not in PHOTOS]
    require(not other, f"Cross-fitting divides photographs, not {', '.join(other)}: leave it out of --sources.")
    encoders = ordered_folds(folds)
    pairs = load_pairs(folder, sources)
    kept = KeptPairs.of(pairs, encoder, _recipe(folds[0]), progress)
    parts = []
    for fold, path in encoders.items():
        own = load_encoder(f"local-dir:{path}", str(encoder.device))
        unseen = np.array([in_fold(pair, fold) for pair in pairs])
        anchors = np.flatnonzero(~unseen)[:: max(1, int((~unseen).sum()) // _ANCHORS)]
        rotation = orthogonal_map(kept.points(anchors, own), kept.points(anchors, encoder))
        data = kept.embed(np.flatnonzero(unseen), own)
        parts.append(PairData(data.texts @ rotation, data.frames @ rotation, data.video_of, data.captions))
    whole = parts[0]
    for part in parts[1:]:
        whole = concatenate(whole, part)
    return whole


def ordered_folds(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders of fold encoders by their folds, "1/K" to "K/K".

    Raises:
        InputError: a folder has no encoder with a fold, or a fold is missing or twice.
    """
    named = {fold_of(folder): folder for folder in folders}
    count = parse_fold(next(iter(named)))[1] if named else 0
    expected = [f"{number}/{count}" for number in range(1, count + 1)]
    require(
        bool(named) and sorted(named) == sorted(expected) and len(named) == len(folders),
        f"Cross-fitting needs one encoder for each fold, and these are of the folds {', '.join(sorted(named))}: train "
        "one with --fold 1/K to K/K each.",
    )
    return {fold: named[fold] for fold in expected}


@dataclass(frozen=True)
class KeptPairs:
    """Pairs, their kept views, and the number of the plain view of every picture of each pair."""

    pairs: Sequence[Pair]
    rows: TowerRows
    plain: list[np.ndarray]

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], encoder: OpenClipEncoder, config: EncoderTrainingConfig, progress: Progress | None
    ) -> "KeptPairs":
        """The views that `train encoder` has kept in the cache; missing ones are computed."""
        require(
            config.image_stages <= MAX_KEPT,
            f"Cross-fitting needs kept views: train the encoders with --image-stages {MAX_KEPT} or fewer.",
        )
        show = progress or (lambda done, total: None)
        rows = pair_rows(encoder.module.visual.trunk, pairs, config.crops, config.kept_stages, show)
        plain, start = [], 0
        for pair in pairs:
            views = np.array(views_of(pair, config.crops))
            plain.append(start + np.cumsum(views) - views)
            start += int(views.sum())
        return cls(pairs, rows, plain)

    def embed(self, numbers: np.ndarray, encoder: OpenClipEncoder, texts: int | None = None) -> PairData:
        """Embeds some of the pairs, with all texts or the first ones."""
        chosen = [replace(self.pairs[number], texts=self.pairs[number].texts[:texts]) for number in numbers]
        return embed_kept(chosen, encoder, self.rows, np.concatenate([self.plain[number] for number in numbers]))

    def points(self, numbers: np.ndarray, encoder: OpenClipEncoder) -> Tensor:
        """The first text and the video of some of the pairs as unit vectors (2 N, d), so that both weigh the same."""
        data = self.embed(numbers, encoder, texts=1)
        return torch.cat([F.normalize(data.texts, dim=-1), F.normalize(data.frames.mean(dim=1), dim=-1)])


def fold_of(folder: Path) -> str:
    """The fold that the encoder in a folder was trained without.

    Raises:
        InputError: the folder has no record of a training that this release reads, or of one without a fold.
    """
    fold = _recipe(folder).fold
    require(bool(fold), f"The encoder in {folder} was trained on all folds: make one with train encoder --fold k/K.")
    return fold


def orthogonal_map(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal matrix R (d, d) that minimises |source R - target|, for points (N, d) (Schönemann 1966)."""
    u, _, vh = torch.linalg.svd(source.double().T @ target.double())
    return (u @ vh).float()


def _recipe(folder: Path) -> EncoderTrainingConfig:
    path = folder / "training.json"
    try:
        return EncoderTrainingConfig(**parse_json(path.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{path} is no record of an encoder's training: make the encoder with train encoder --fold k/K."
        ) from error

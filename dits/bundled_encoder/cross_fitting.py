"""Cross-fitting: pairs embedded by encoders that were trained without them, for heads that train on unseen pairs.

An encoder has memorised its training pairs: there, a caption is closer to its video than any unseen caption to its own.
A head that trains on such pairs has nothing left to align. So the photographs are divided into K folds; for each, an
encoder is trained on the others (`EncoderTrainingConfig.fold`) and embeds the fold. An orthogonal map, which keeps all
cosines and norms, brings these embeddings into the space of the encoder that the head will be used with.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.bundled_encoder.config import PHOTOS, parse_fold
from dits.bundled_encoder.data import in_fold, load_pairs
from dits.bundled_encoder.pair_embeddings import concatenate, embed_pairs
from dits.bundled_encoder.pairs.shards import Pair
from dits.common.errors import InputError, require
from dits.corpora.corpus import Progress
from dits.encoders.openclip import Encoder, load_encoder
from dits.training.trainer import PairData

_ANCHORS = 1000  # pairs that fix the map between two encoders

Embed = Callable[[Sequence[Pair], Encoder, Progress | None], PairData]


def cross_fitted_pairs(
    folder: Path,
    sources: Sequence[str],
    encoder: Encoder,
    folds: Sequence[Path],
    progress: Progress | None = None,
    embed: Embed = embed_pairs,
) -> PairData:
    """Embeds photographs, each by the encoder that was trained without it, in the space of `encoder`.

    Args:
        folder: the folder of shards.
        sources: the sources to embed; all are photographs.
        encoder: the encoder that the head will be used with, trained on all folds.
        folds: the folders of the encoders of all K folds, in any order, as `train encoder --fold k/K` wrote them.
        progress: called with the number of embedded pictures of a fold, and its total.

    Raises:
        InputError: a source has drawings; a folder has no encoder with a fold, or the folds are not 1/K to K/K.
        PairsError: see `load_pairs`.
        EncoderError: an encoder cannot be loaded.
    """
    other = [name for name in sources if name not in PHOTOS]
    require(not other, f"Cross-fitting divides photographs, not {', '.join(other)}: leave it out of --sources.")
    named = {fold_of(path): path for path in folds}
    count = parse_fold(next(iter(named)))[1] if named else 0
    expected = {f"{number}/{count}" for number in range(1, count + 1)}
    require(
        bool(named) and set(named) == expected and len(named) == len(folds),
        f"Cross-fitting needs one encoder for each fold, and these are of the folds {', '.join(sorted(named))}: train "
        "one with --fold 1/K to K/K each.",
    )
    pairs = load_pairs(folder, sources)
    parts = []
    for fold in sorted(named, key=parse_fold):
        own = load_encoder(f"local-dir:{named[fold]}", str(encoder.device))
        unseen = [pair for pair in pairs if in_fold(pair, fold)]
        seen = _anchors([pair for pair in pairs if not in_fold(pair, fold)])
        rotation = orthogonal_map(_points(embed(seen, own, None)), _points(embed(seen, encoder, None)))
        data = embed(unseen, own, progress)
        parts.append(PairData(data.texts @ rotation, data.frames @ rotation, data.video_of, data.captions))
    whole = parts[0]
    for part in parts[1:]:
        whole = concatenate(whole, part)
    return whole


def fold_of(folder: Path) -> str:
    """The fold that the encoder in a folder was trained without.

    Raises:
        InputError: the folder has no record of a training, or of one without a fold.
    """
    path = folder / "training.json"
    try:
        fold = json.loads(path.read_text(encoding="utf-8"))["config"]["fold"]
        parse_fold(fold)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError(
            f"{path} names no fold that the encoder was trained without: make it with train encoder --fold k/K."
        ) from error
    return str(fold)


def orthogonal_map(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal matrix R (d, d) that minimises |source R - target|, for points (N, d) (Schönemann 1966)."""
    u, _, vh = torch.linalg.svd(source.double().T @ target.double())
    return (u @ vh).float()


def _anchors(pairs: Sequence[Pair]) -> list[Pair]:
    """At most _ANCHORS of the pairs, evenly spaced, each with its first text and picture."""
    positions = np.unique(np.linspace(0, len(pairs) - 1, min(_ANCHORS, len(pairs))).astype(int))
    return [
        Pair(p.source, p.package, p.file, p.licence, p.group, p.texts[:1], p.pictures[:1])
        for p in (pairs[position] for position in positions)
    ]


def _points(data: PairData) -> Tensor:
    """The texts and videos of pairs as unit vectors (2 N, d), so that both have the same weight."""
    return torch.cat([F.normalize(data.texts, dim=-1), F.normalize(data.frames.mean(dim=1), dim=-1)])

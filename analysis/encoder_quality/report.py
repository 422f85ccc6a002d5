"""Measures of an encoder: retrieval by mean pooling, zero-shot accuracy, paraphrase agreement, the modality gap."""

from collections.abc import Sequence
from itertools import combinations
from statistics import stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.measures.gap import gap_measures
from dits.bundled_encoder.data import is_held_out
from dits.bundled_encoder.pairs.drawings import HELD_OUT_STAMPS
from dits.bundled_encoder.pairs.shards import Pair
from dits.bundled_encoder.pictures import plain_view
from dits.common.errors import PairsError
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import Encoder
from dits.evaluation.metrics import evaluate_scores
from dits.models.pooling import mean_pool

SPLITS = ("validation", "test")
"""The evaluated splits."""

CATEGORY_NAMES = {
    "animals/birds": "a bird",
    "food/fruit": "a fruit",
    "food/vegetables": "a vegetable",
    "clothes/hats": "a hat",
    "household/tools": "a tool",
    "hobbies/music": "a musical instrument",
}
"""Class names of the held-out categories of stamps in the zero-shot test."""


def encoder_report(
    encoder: Encoder, corpus: Corpus, embeddings: CorpusEmbeddings, stamps: Sequence[Pair] | None = None
) -> dict[str, Any]:
    """All measures of an encoder by split of a corpus, and zero-shot accuracy if held-out stamps are given.

    Raises:
        InputError: a split has fewer than two clips.
        PairsError: the stamps include none of the held-out categories.
    """
    report: dict[str, Any] = {"encoder": encoder.id}
    for split in SPLITS:
        part = corpus.split(split)
        texts = encoder.encode_text([caption for clip in part for caption in clip.captions])
        clip_of = np.array([index for index, clip in enumerate(part) for _ in clip.captions])
        videos = mean_pool(embeddings.select(part.ids).frames)
        scores = F.normalize(texts, dim=-1) @ F.normalize(videos, dim=-1).T
        report[split] = {
            **evaluate_scores(scores, clip_of),
            "paraphrase": paraphrase_agreement(scores.numpy(), clip_of),
            "gap": gap_measures(texts, videos[torch.from_numpy(clip_of)]),
        }
    if stamps is not None:
        report["zero_shot"] = zero_shot(encoder, stamps)
    return report


def paraphrase_agreement(scores: np.ndarray, clip_of: np.ndarray) -> dict[str, float]:
    """Agreement of rankings over all pairs of captions of one clip, from scores (texts, videos).

    `top1` is the share (percent) of pairs with the same first result. `spearman` is the mean rank correlation of their
    rankings of the whole gallery.
    """
    ranks = scores.argsort(axis=1).argsort(axis=1).astype(float)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    first = scores.argmax(axis=1)
    same, correlations = [], []
    for clip in np.unique(clip_of):
        for a, b in combinations(np.flatnonzero(clip_of == clip), 2):
            same.append(first[a] == first[b])
            correlations.append(centred[a] @ centred[b])
    return {"top1": 100 * float(np.mean(same)), "spearman": float(np.mean(correlations))}


def zero_shot(encoder: Encoder, stamps: Sequence[Pair]) -> dict[str, float]:
    """Accuracy (percent) on stamps of categories that are held out from training.

    `category`: classification by the names of the six categories. `description`: by all different descriptions.

    Raises:
        PairsError: the pairs include no held-out stamps.
    """
    held_out = [pair for pair in stamps if is_held_out(pair)]
    if not held_out:
        raise PairsError("The pairs have no held-out stamps: prepare the source 'stamps'.")
    pictures = _embed([plain_view(pair.pictures[0]) for pair in held_out], encoder)
    categories = [next(n for n in HELD_OUT_STAMPS if p.group == n or p.group.startswith(f"{n}/")) for p in held_out]
    names = [CATEGORY_NAMES[name] for name in HELD_OUT_STAMPS]
    descriptions = sorted({pair.texts[0] for pair in held_out})
    own_category = torch.tensor([HELD_OUT_STAMPS.index(name) for name in categories])
    own_description = torch.tensor([descriptions.index(pair.texts[0]) for pair in held_out])
    return {
        "pictures": len(held_out),
        "descriptions": len(descriptions),
        "category": _accuracy(pictures, encoder.encode_text(names), own_category),
        "description": _accuracy(pictures, encoder.encode_text(descriptions), own_description),
    }


def spread(values: Sequence[float]) -> float:
    """The standard deviation, or 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def _embed(views: Sequence[Tensor], encoder: Encoder) -> Tensor:
    frames = [encoder.preprocess(view.permute(1, 2, 0)[None].numpy()) for view in views]
    batches = [torch.stack(frames[i : i + 12]) for i in range(0, len(frames), 12)]
    return torch.cat([encoder.encode_frames(batch)[:, 0] for batch in batches])


def _accuracy(pictures: Tensor, texts: Tensor, own: Tensor) -> float:
    best = (F.normalize(pictures, dim=-1) @ F.normalize(texts, dim=-1).T).argmax(dim=1)
    return 100 * float((best == own).float().mean())

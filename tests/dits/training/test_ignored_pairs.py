"""Pairs of a batch that are not negatives: the definition, and its use in training on embeddings."""

import math

import numpy as np
import pytest
import torch

from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.training.ignored_pairs import IgnoredPairs
from dits.training.trainer import PairData, TrainingConfig, train


@pytest.mark.parametrize("ignore", ["none", "video", "caption", "both"])
def test_ignored_pairs_are_those_of_the_definition(ignore):
    captions = ["a", "b", "a", "c", "c", "d", "a"]
    video_of = np.array([0, 0, 1, 2, 2, 3, 1])
    rows = np.array([6, 1, 4, 0, 3, 5])
    expected = np.zeros((6, 6), bool)
    for i, text in enumerate(rows):
        for j, other in enumerate(rows):
            own = video_of[text] == video_of[other]
            captions_there = [c for c, v in zip(captions, video_of, strict=True) if v == video_of[other]]
            named = not own and captions[text] in captions_there
            expected[i, j] = i != j and (
                (ignore in ("video", "both") and own) or (ignore in ("caption", "both") and named)
            )
    marked = IgnoredPairs(captions, video_of, ignore).mask(rows)
    assert np.array_equal(np.zeros((6, 6), bool) if marked is None else marked.numpy(), expected)


def plain_loss(cosines, negatives):
    """Mean cross-entropy of both directions at CLIP's maximum temperature, over the allowed negatives only."""
    losses = []
    for matrix, allowed in ((cosines, negatives), (cosines.T, negatives.T)):
        for i in range(len(matrix)):
            others = [math.exp(100 * float(matrix[i, j])) for j in range(len(matrix)) if j == i or allowed[i, j]]
            losses.append(-math.log(math.exp(100 * float(matrix[i, i])) / sum(others)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("ignore", ["none", "video", "caption", "both"])
def test_equal_captions_are_not_negatives_although_their_embeddings_differ_in_the_last_bits(ignore):
    """One step with a learning rate of zero; the loss is computed by hand."""
    generator = torch.Generator().manual_seed(1)
    frames, texts = (torch.randn(4, *shape, 16, generator=generator) for shape in ((3,), ()))
    texts = texts + 5  # so that the cosines are near each other
    texts[2] = texts[0].nextafter(torch.tensor(math.inf))
    captions = ("a dog", "a cat", "a dog", "A dog")
    config = ModelConfig("xpool", PoolingConfig(dim=16, dropout=0.0))
    still = TrainingConfig(epochs=1, batch_size=4, learning_rate=0, clip_learning_rate=0, weight_decay=0, ignore=ignore)
    data = PairData(texts, frames, np.arange(4), captions)
    with torch.no_grad():
        cosines = RetrievalModel(config).eval().similarity(texts, frames)
    negatives = torch.ones(4, 4, dtype=torch.bool)
    if ignore in ("caption", "both"):
        negatives[0, 2] = negatives[2, 0] = False
    assert train(config, still, data, data).best["loss"] == pytest.approx(plain_loss(cosines, negatives), rel=1e-4)
    gained = plain_loss(cosines, torch.ones(4, 4, dtype=torch.bool)) - plain_loss(cosines, negatives)
    assert (gained > 1e-2) == (ignore in ("caption", "both"))

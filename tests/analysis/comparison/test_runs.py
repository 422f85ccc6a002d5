"""Runs: what training alone gives, what is measured, and what a result holds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from analysis.comparison.measures import Embedded, Trained, alignment
from analysis.comparison.methods import ENTRIES
from analysis.comparison.runs import Run, carry_out
from analysis.measures.gap import MEASURES
from dits.evaluation.metrics import ranks_of
from dits.models.alignment import MeanShift
from dits.models.pooling import PoolingConfig, mean_pool
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.training.trainer import PairData, train
from tests.helpers.plain import xpool_similarity


@pytest.fixture
def features(corpus):
    return corpus.read()


def test_the_frozen_embeddings_are_the_projections_of_the_features(features, corpus):
    joint, frozen = (features.part(corpus.train, mode) for mode in ("joint", "frozen"))
    torch.testing.assert_close(features.projections.text(joint.texts), frozen.texts)
    torch.testing.assert_close(features.projections.frames(joint.frames), frozen.frames)
    assert joint.texts.shape == (36, 20)
    assert frozen.frames.shape == (12, 12, 16)
    np.testing.assert_array_equal(frozen.video_of, np.repeat(np.arange(12), 3))


def test_a_run_is_what_training_it_alone_gives(plan, features, corpus):
    """Joint X-Pool: its ranks are those of the plain similarity of the projected features."""
    result = carry_out(plan, Run(ENTRIES["xpool"], "joint", 5), features)
    splits = [features.part(split, "joint") for split in (corpus.train, corpus.validation, corpus.queries["all"])]
    alone = train(
        ModelConfig("xpool", plan.model.pooling), replace(plan.training, seed=5), *splits[:2],
        projections=features.projections,
    )  # fmt: skip
    assert result["best"] == alone.best
    assert result["steps"] == 2 * 4
    with torch.no_grad():
        texts, frames = alone.projections(splits[2].texts, splits[2].frames)
        scores = xpool_similarity(alone.model.pooling, texts, texts, frames).numpy()
    np.testing.assert_array_equal(result["ranks"]["all"]["t2v"], ranks_of(scores, splits[2].video_of))


@pytest.mark.parametrize(
    ("name", "mode"), [("mean", "frozen"), ("dits", "frozen"), *((n, "joint") for n in ENTRIES if "steps" not in n)]
)
def test_every_method_is_trained_and_measured(name, mode, plan, features):
    result = json.loads(json.dumps(carry_out(plan, Run(ENTRIES[name], mode, 1), features), allow_nan=False))
    assert {key: len(values["t2v"]) for key, values in result["ranks"].items()} == {"one": 5, "all": 15}
    assert {len(values["v2t"]) for values in result["ranks"].values()} == {5}
    assert result["leak"]["correct"] == 100 * np.mean(np.array(result["ranks"]["one"]["t2v"]) <= 1)
    assert result["ms"]["query"] > 0
    assert result["steps"] == (0 if name == "mean" and mode == "frozen" else 8)
    if name == "tmass":
        assert result["alignment"] == {}
    else:
        assert result["alignment"]["gap"]["after"].keys() == MEASURES.keys()
        assert sum(result["alignment"]["per_video"]["captions"]) == 15


def test_the_measures_of_a_known_movement():
    """All texts move by the mean gap of two pairs: in the plane everything can be computed by hand."""
    texts = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    frames = torch.tensor([[[0.0, 1.0]] * 12, [[-0.6, 0.8]] * 12])
    model = RetrievalModel(ModelConfig("shift", PoolingConfig(kind="mean", dim=2))).eval()
    assert isinstance(model.alignment, MeanShift)
    model.alignment.shift.copy_(torch.tensor([-0.5, 0.5]))
    data = PairData(texts, frames, np.array([0, 0, 1]), ("a", "b", "c"))
    measured = alignment(model, Trained(model, None).embedded(data), data, with_gap=False)
    own = mean_pool(frames)[[0, 0, 1]]
    moved = F.normalize(texts + torch.tensor([-0.5, 0.5]), dim=-1)
    per_video = measured["per_video"]
    assert per_video["captions"] == [2, 1]
    before, after = ((points * own).sum(dim=1) for points in (texts, moved))
    assert per_video["cosine_before"] == pytest.approx([0.0 + 0.6, 0.28], abs=1e-5)
    assert per_video["cosine_after"] == pytest.approx([float(after[:2].sum()), float(after[2])], abs=1e-5)
    assert per_video["nearer"] == [2, 1]
    assert (after > before).all()
    angles = torch.rad2deg(torch.acos((texts * moved).sum(dim=1)))
    assert per_video["angle"] == pytest.approx([float(angles[:2].sum()), float(angles[2])], abs=1e-2)
    centre = mean_pool(frames).mean(dim=0)
    closed = 1 - float((centre - moved.mean(dim=0)).norm() / (centre - texts.mean(dim=0)).norm())
    assert measured["closed"] == pytest.approx(closed, abs=1e-5)
    assert measured["closed_from_frozen"] == pytest.approx(closed, abs=1e-5)


def test_a_method_of_pairs_has_no_aligned_texts():
    data = Embedded(torch.zeros(2, 4), None, torch.zeros(2, 12, 4), np.arange(2))
    assert alignment(RetrievalModel(ModelConfig("tmass", PoolingConfig(dim=4))), data, None) == {}


def test_what_changes_a_result_changes_its_name(plan, corpus):
    run = Run(ENTRIES["dits"], "frozen", 1)
    others = [
        (plan, replace(run, seed=2)), (plan, replace(run, mode="joint")), (plan, Run(ENTRIES["mlp"], "frozen", 1)),
        (replace(plan, training=replace(plan.training, epochs=3)), run), (replace(plan, split="validation"), run),
        (replace(plan, corpus=replace(corpus, key="other")), run),
    ]  # fmt: skip
    names = [plan.name(run), *(other.name(another) for other, another in others)]
    assert len(set(names)) == len(names)
    assert replace(plan, training=replace(plan.training, seed=9)).name(run) == names[0]

"""Training of an encoder's projections together with a retrieval model, on features of the towers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dits.common.errors import CheckpointError, InputError
from dits.models.pooling import PoolingConfig
from dits.models.projections import Projections
from dits.models.retrieval import ModelConfig
from dits.training.trainer import PairData, TrainingConfig, train, validate
from tests.dits.training.test_trainer import DIM, config, pairs

QUICK = TrainingConfig(
    epochs=3, batch_size=8, learning_rate=3e-3, weight_decay=0.0, seed=7, temperature=10.0, projection_rate=3e-3
)  # fmt: skip
WIDTHS = (24, 40)


def features(seed=0):
    """Pairs of features of other widths than the embeddings."""
    data = pairs(seed=seed)
    generator = torch.Generator().manual_seed(9)
    maps = [torch.randn(DIM, width, generator=generator) for width in WIDTHS]
    return PairData(data.texts @ maps[0], data.frames @ maps[1], data.video_of, data.captions)


def projections():
    torch.manual_seed(5)
    return Projections(nn.Linear(WIDTHS[0], DIM, bias=False), nn.Linear(WIDTHS[1], DIM))


def mean():
    return ModelConfig("mean", PoolingConfig(dim=DIM))


def test_mean_pooling_trains_its_projections():
    start = projections()
    result = train(mean(), replace(QUICK, epochs=8), features(), features(seed=1), projections=start)
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), projections().parameters(), strict=True))
    for a, b in zip(start.parameters(), result.projections.parameters(), strict=True):
        assert not torch.equal(a, b)


@pytest.mark.parametrize("method", ["xpool", "dits", "shift"])
def test_the_result_is_the_best_epoch_of_model_and_projections(method):
    wild = replace(QUICK, learning_rate=0.1, projection_rate=0.1)
    validation = features(seed=1)
    result = train(config(method), wild, features(), validation, projections=projections())
    texts, frames = result.projections(validation.texts, validation.frames)
    projected = replace(validation, texts=texts.detach(), frames=frames.detach())
    assert validate(result.model, projected).items() <= result.best.items()


def test_fixed_identities_change_nothing():
    data, validation = pairs(), pairs(seed=1)
    identity = Projections(nn.Linear(DIM, DIM, bias=False), nn.Linear(DIM, DIM, bias=False))
    for layer in (identity.text, identity.frames):
        nn.init.eye_(layer.weight)
    unclipped = replace(
        QUICK, projection_rate=0.0, clip_norm=1e9
    )  # the norm of all gradients includes the projections'
    plain = train(config("dits"), unclipped, data, validation)
    tuned = train(config("dits"), unclipped, data, validation, projections=identity)
    assert plain.projections is None
    assert [r["loss"] for r in tuned.history] == pytest.approx([r["loss"] for r in plain.history], rel=1e-4)


def test_a_killed_run_of_projections_resumes_bit_for_bit(tmp_path):
    settings = replace(QUICK, feature_dropout=0.2, epoch_captions=20, precision="bf16", temperature_rate=0.01)
    arguments = (config("dits"), settings, features(), features(seed=1))
    uninterrupted = train(*arguments, projections=projections())

    def kill(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*arguments, projections=projections(), run=tmp_path, on_epoch=kill)
    resumed = train(*arguments, projections=projections(), run=tmp_path)
    assert resumed.history == uninterrupted.history
    for name in ("model", "projections"):
        a, b = (getattr(result, name).state_dict() for result in (resumed, uninterrupted))
        assert all(torch.equal(a[key], b[key]) for key in a)
    other = projections()
    nn.init.zeros_(other.frames.bias)
    with pytest.raises(CheckpointError, match="another configuration or other data"):
        train(*arguments, projections=other, run=tmp_path)


def test_dropout_of_features_is_used_in_training_only():
    losses = [
        train(mean(), replace(QUICK, feature_dropout=share), features(), features(seed=1), projections=projections())
        for share in (0.0, 0.5)
    ]
    assert losses[0].history[0]["loss"] != losses[1].history[0]["loss"]


@pytest.mark.parametrize(
    ("settings", "tuned", "says"),
    [
        ({"objective": "l2"}, True, "would collapse"),
        ({"feature_dropout": 0.1}, False, "--tune-projections"),
    ],
)
def test_what_does_not_fit_projections_is_refused(settings, tuned, says):
    given = projections() if tuned else None
    with pytest.raises(InputError, match=says):
        train(config("dits"), replace(QUICK, **settings), features(), features(), projections=given)

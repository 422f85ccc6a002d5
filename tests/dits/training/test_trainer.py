from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import CheckpointError, DitsError, InputError
from dits.models.losses import symmetric_cross_entropy
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig
from dits.models.sampler import SamplerConfig
from dits.training.optimisation import warmup_cosine
from dits.training.trainer import PairData, TrainingConfig, batches, train

DIM = 32
QUICK = TrainingConfig(epochs=4, batch_size=8, learning_rate=3e-3, weight_decay=0.0, seed=7)


def config(method, **sampler):
    network = AlignmentConfig(dim=DIM, depth=1, heads=4, timestep_features=16)
    settings = {"steps": 3, "noise_scale": 0.1} | sampler
    return ModelConfig(method, PoolingConfig(dim=DIM, dropout=0.1), SamplerConfig(**settings), network)


def pairs(videos=20, seed=0, shift=3.0):
    """Embeddings of captions and videos with the same gap for all pairs."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    centres, gap = draw(videos, DIM), shift * F.normalize(torch.ones(DIM), dim=0)
    frames = centres[:, None] + 0.3 * draw(videos, 4, DIM)
    video_of = np.repeat(np.arange(videos), 3)
    captions = tuple(f"caption {number}" for number in range(3 * videos))
    return PairData(centres[video_of] + gap + 1.5 * draw(3 * videos, DIM), frames, video_of, captions)


@pytest.mark.parametrize("method", ["xpool", "dits"])
def test_training_lowers_the_loss(method):
    longer = replace(QUICK, epochs=10)
    result = train(config(method, noise_scale=0.0), longer, pairs(), pairs(seed=1))
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.8 * losses[0]


def test_training_is_deterministic_by_seed():
    first, second = (train(config("dits"), QUICK, pairs(), pairs(seed=1)) for _ in range(2))
    assert first.history == second.history
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, stop_after):
    uninterrupted = train(config("dits"), QUICK, pairs(), pairs(seed=1))

    def kill(record):
        if record["epoch"] == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config("dits"), QUICK, pairs(), pairs(seed=1), run=tmp_path, on_epoch=kill)
    resumed_epochs = []
    resumed = train(
        config("dits"),
        QUICK,
        pairs(),
        pairs(seed=1),
        run=tmp_path,
        on_epoch=lambda r: resumed_epochs.append(r["epoch"]),
    )
    assert resumed_epochs == list(range(stop_after + 1, 5))
    assert resumed.history == uninterrupted.history
    for a, b in zip(resumed.model.parameters(), uninterrupted.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_of_another_configuration_is_refused(tmp_path):
    train(config("xpool"), QUICK, pairs(), pairs(seed=1), run=tmp_path)
    with pytest.raises(CheckpointError, match="another configuration"):
        train(config("dits"), QUICK, pairs(), pairs(seed=1), run=tmp_path)


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="damaged"):
        train(config("xpool"), QUICK, pairs(), pairs(seed=1), run=tmp_path)


def test_the_best_epoch_is_returned():
    wild = TrainingConfig(epochs=6, batch_size=8, learning_rate=0.3, seed=1)
    result = train(config("dits"), wild, pairs(), pairs(seed=1))
    sums = [sum(record["t2v"][f"R@{k}"] for k in (1, 5, 10)) for record in result.history]
    assert sums[result.best["epoch"] - 1] == max(sums)


def test_patience_stops_early():
    wild = TrainingConfig(epochs=50, batch_size=8, learning_rate=0.3, patience=2, seed=1)
    result = train(config("xpool"), wild, pairs(), pairs(seed=1))
    assert len(result.history) == result.best["epoch"] + 2 < 50


def test_starts_from_a_trained_pooling():
    xpool = train(config("xpool"), QUICK, pairs(), pairs(seed=1)).model
    slow = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-9, clip_learning_rate=0, weight_decay=0)
    dits = train(config("dits"), slow, pairs(), pairs(seed=1), init=xpool).model
    for a, b in zip(dits.pooling.parameters(), xpool.pooling.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_stops_when_the_loss_is_not_finite(tmp_path):
    broken = pairs()
    broken.texts[5] = float("inf")
    with pytest.raises(DitsError, match="loss is not finite at step"):
        train(config("xpool"), QUICK, broken, pairs(seed=1), run=tmp_path)


def test_mean_pooling_has_nothing_to_train():
    with pytest.raises(InputError, match="no weights"):
        train(config("mean"), QUICK, pairs(), pairs(seed=1))


def test_batches_hold_every_caption_once_and_no_video_twice():
    video_of = np.array([0] * 5 + [1] * 5 + [2] * 3 + [3] * 5 + [4] * 4)
    epoch = list(batches(video_of, batch_size=2, seed=3))
    everything = np.concatenate(epoch)
    assert len(everything) == len(set(everything.tolist())) == 22
    for batch in epoch:
        assert 2 <= len(batch) <= 3  # three if a single pair joins
        assert len(set(video_of[batch].tolist())) == len(batch)


def test_batches_differ_by_seed_and_repeat_by_seed():
    video_of = np.repeat(np.arange(10), 2)
    first, again, other = (np.concatenate(list(batches(video_of, 4, seed))) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_warmup_rises_linearly_and_the_cosine_ends_at_zero():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5)
    assert factors[-1] < 1e-3
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_loss_is_the_mean_of_both_directions():
    similarities = torch.tensor([[0.9, 0.1], [0.4, 0.2]])
    scale = torch.tensor(2.0)
    logits = similarities * scale.exp()
    rows = [-(logits[i, i] - logits[i].exp().sum().log()) for i in range(2)]
    columns = [-(logits[i, i] - logits[:, i].exp().sum().log()) for i in range(2)]
    assert float(symmetric_cross_entropy(similarities, scale)) == pytest.approx(float(sum(rows + columns) / 4))


def test_temperature_stays_at_or_below_one_hundred():
    result = train(config("xpool"), TrainingConfig(epochs=1, batch_size=8, clip_learning_rate=1.0), pairs(), pairs())
    assert float(result.model.logit_scale.detach().exp()) <= 100.001

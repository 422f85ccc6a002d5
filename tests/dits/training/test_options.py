"""Options of a training on cached embeddings that are ours: alignment term, temperature, short epochs, bf16."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import InputError
from dits.models.alignment import cosines
from dits.models.retrieval import METHODS, RetrievalModel
from dits.training.batches import batches, drawn_batches
from dits.training.trainer import TrainingConfig, train
from tests.dits.training.test_trainer import DIM, config, pairs

QUICK = TrainingConfig(epochs=2, batch_size=8, learning_rate=3e-3, weight_decay=0.0, seed=7)


def model_of(method, **pooling):
    torch.manual_seed(0)
    settings = config(method, noise_scale=0.0)
    model = RetrievalModel(replace(settings, pooling=replace(settings.pooling, **pooling)))
    for parameter in model.parameters():  # alignments that start at zero would be the identity
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def batch(size=6):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(size, DIM, generator=generator), torch.randn(size, 12, DIM, generator=generator)


# --- The alignment term ---


@pytest.mark.parametrize("method", ["mean", "xpool", "diffusion", "dits", "mlp", "shift"])
def test_the_alignment_term_is_the_mean_distance_of_texts_and_their_own_videos(method):
    model, (texts, frames) = model_of(method), batch()
    own = F.cosine_similarity(model.align(texts), model.own_videos(texts, frames), dim=-1)
    difference = model.loss(texts, frames, alignment_weight=2.5) - model.loss(texts, frames)
    assert float(difference.detach()) == pytest.approx(2.5 * float((1 - own.detach()).mean()), abs=1e-4)


def test_the_alignment_term_of_a_pairwise_method_is_of_its_own_cosines():
    settings = config("dits", noise_scale=0.0)
    torch.manual_seed(0)
    pairwise = RetrievalModel(replace(settings, sampler=replace(settings.sampler, condition="video"))).eval()
    for model in (pairwise, model_of("tmass")):
        texts, frames = batch()
        torch.manual_seed(1)
        own = model.alignment.training_cosines(texts, model.pooled(texts, frames), frames)[0][1].diagonal()
        losses = []
        for weight in (1.0, 0.0):
            torch.manual_seed(1)
            losses.append(float(model.loss(texts, frames, alignment_weight=weight).detach()))
        assert losses[0] - losses[1] == pytest.approx(float((1 - own.detach()).mean()), abs=1e-4)


def test_the_alignment_term_closes_the_gap():
    data, texts = pairs(), pairs().texts
    means: list[float] = []
    for weight in (0.0, 10.0):
        settings = replace(QUICK, epochs=4, alignment_weight=weight, temperature=10.0)
        model = train(config("dits", noise_scale=0.0), settings, data, data).model
        own = model.own_videos(texts, data.frames[torch.from_numpy(data.video_of)])
        means.append(F.cosine_similarity(model.align(texts), own, dim=-1).mean().item())
    assert means[1] > means[0] + 0.05


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alignment_weight": -1.0}, "cannot be negative"),
        ({"alignment_weight": 1.0, "objective": "l2"}, "leave it out with the objective l2"),
        ({"temperature": 101.0}, "from 0 to 100"),
        ({"epoch_captions": 31}, "holds no batch of 32"),
        ({"precision": "fp16"}, "no precision 'fp16'"),
        ({"feature_dropout": 1.0}, "dropout must be from 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(InputError, match=says):
        TrainingConfig(**settings)


# --- The temperature ---


def test_the_temperature_starts_where_asked_and_trains_at_its_own_rate():
    still = train(config("xpool"), replace(QUICK, temperature=20.0, clip_learning_rate=0.0), pairs(), pairs())
    assert [record["temperature"] for record in still.history] == pytest.approx([20.0, 20.0])
    trained = train(config("xpool"), replace(QUICK, temperature=20.0, temperature_rate=0.01), pairs(), pairs())
    assert abs(trained.history[-1]["temperature"] - 20.0) > 0.5
    assert trained.best["temperature"] == pytest.approx(trained.model.temperature)


def test_a_temperature_of_its_own_rate_does_not_decay():
    """A step of AdamW changes the logarithm by the learning rate at most; decay by half would change it by more."""
    settings = replace(QUICK, epochs=1, weight_decay=50.0, learning_rate=0.0, temperature=50.0, temperature_rate=0.001)
    result = train(config("xpool"), settings, pairs(), pairs())
    steps = len(list(batches(pairs().video_of, 8, 0)))
    assert abs(np.log(result.model.temperature / 50.0)) <= 0.001 * steps + 1e-6


def test_weights_to_start_from_bring_their_temperature_unless_one_is_given():
    init = model_of("xpool")
    init.set_temperature(30.0)
    settings = replace(QUICK, epochs=1, clip_learning_rate=0.0)
    for given, expected in ((100.0, 30.0), (12.0, 12.0)):
        result = train(config("dits"), replace(settings, temperature=given), pairs(), pairs(), init=init)
        assert result.model.temperature == pytest.approx(expected)


def test_the_temperature_of_an_encoder_must_be_given_as_a_number():
    with pytest.raises(InputError, match=r"encoder\.temperature"):
        train(config("xpool"), replace(QUICK, temperature=0.0), pairs(), pairs())


# --- Short epochs ---


def test_a_short_epoch_has_full_batches_without_a_video_twice():
    video_of = np.random.default_rng(0).integers(100, size=1000)
    epoch = list(drawn_batches(video_of, 32, seed=1, captions=330))
    assert [len(batch) for batch in epoch] == [32] * 10
    assert len(set(np.concatenate(epoch).tolist())) == 320  # no caption twice before all were drawn
    for batch in epoch:
        assert len(set(video_of[batch].tolist())) == len(batch)
    again, other = (np.concatenate(list(drawn_batches(video_of, 32, seed, 330))) for seed in (1, 2))
    assert np.array_equal(again, np.concatenate(epoch))
    assert not np.array_equal(other, np.concatenate(epoch))


def test_drawn_captions_are_of_all_videos_alike():
    """One of 20 videos has half of the captions; batches of 20 hold each video once, and each caption equally often."""
    video_of = np.array([0] * 38 + list(range(1, 20)) * 2)
    drawn = np.concatenate([b for seed in range(100) for b in drawn_batches(video_of, 32, seed, captions=60)])
    assert (np.bincount(video_of[drawn]) == 300).all()
    counts = np.bincount(drawn[video_of[drawn] == 0], minlength=38)
    assert counts.min() > 0
    assert counts.max() < 25  # 300 / 38 on average


@pytest.mark.parametrize("captions", [0, 60, 1000])
def test_an_epoch_of_all_captions_takes_each_once(captions):
    steps = []
    train(
        config("xpool"), replace(QUICK, epochs=1, epoch_captions=captions), pairs(), pairs(),
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps[-1] == (9, 9)  # three rounds of 20 videos, each in batches of 7, 7 and 6


def test_short_epochs_make_the_steps_that_are_asked_for():
    steps = []
    settings = replace(QUICK, epochs=3, epoch_captions=24)
    train(config("xpool"), settings, pairs(), pairs(), on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(number, 9) for number in range(1, 10)]


# --- bf16 ---


@pytest.mark.parametrize("method", METHODS)
def test_bf16_changes_the_loss_little(method):
    model, (texts, frames) = model_of(method), batch()
    model.set_temperature(10.0)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.loss(texts, frames, alignment_weight=1.0)
        assert loss.dtype == torch.float32
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_cosines_are_exact_in_bf16():
    texts, frames = batch()
    pooled = frames.mean(dim=1)[None]
    with torch.autocast("cpu", torch.bfloat16):
        inside = cosines(texts, pooled)
        rounded = F.normalize(texts, dim=-1) @ F.normalize(pooled[0], dim=-1).T
    assert torch.equal(inside, cosines(texts, pooled))
    assert not torch.allclose(inside, rounded.float(), atol=1e-5)


def test_training_in_bf16_follows_training_in_fp32():
    settings = [replace(QUICK, precision=precision) for precision in ("fp32", "bf16")]
    runs = [train(config("dits"), setting, pairs(), pairs()) for setting in settings]
    losses = [[record["loss"] for record in result.history] for result in runs]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert {parameter.dtype for parameter in runs[1].model.parameters()} == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_a_gpu_follows_training_on_the_cpu(precision, tmp_path):
    settings, model = replace(QUICK, precision=precision), config("mlp")
    model = replace(
        model, pooling=replace(model.pooling, dropout=0.0)
    )  # nothing is drawn: the devices draw differently
    on_cpu = train(model, settings, pairs(), pairs())
    on_gpu = train(model, settings, pairs(), pairs(), device="cuda", run=tmp_path)
    assert [r["loss"] for r in on_gpu.history] == pytest.approx([r["loss"] for r in on_cpu.history], rel=0.05)
    assert on_gpu.model.logit_scale.device.type == "cpu"
    resumed = train(model, settings, pairs(), pairs(), device="cuda", run=tmp_path)
    assert resumed.history == on_gpu.history


def test_there_must_be_such_a_device():
    with pytest.raises(InputError, match="no device 'tpu'"):
        train(config("xpool"), QUICK, pairs(), pairs(), device="tpu")

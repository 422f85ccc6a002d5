import json
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dits.common.errors import CheckpointError
from dits.encoders.openclip import load_encoder
from dits.models.checkpoint import CheckpointHeader, load_checkpoint, save_checkpoint
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.models.sampler import SamplerConfig
from tests.conftest import write_open_clip_folder

CONFIG = ModelConfig(
    "dits", PoolingConfig(dim=32), SamplerConfig(steps=3), AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False)
)


def header_for(tiny, **changes):
    values = {
        "encoder": tiny.id,
        "quick_gelu": tiny.quick_gelu,
        "dim": tiny.dim,
        "config": CONFIG.as_dict(),
        "data": {"corpus": "test"},
        "training": {"seed": 3},
        "metric": {"t2v": {"R@1": 12.5}},
    }
    return CheckpointHeader(**(values | changes))


@pytest.fixture
def saved(tmp_path, tiny_encoder):
    torch.manual_seed(0)
    model = RetrievalModel(CONFIG).eval()
    path = tmp_path / "dits.safetensors"
    save_checkpoint(path, model, header_for(tiny_encoder), tiny_encoder.fingerprint())
    return path, model


def test_weights_come_back_as_they_were(saved, tiny_encoder):
    path, model = saved
    loaded = load_checkpoint(path, tiny_encoder, "dits")
    assert loaded.model.config == CONFIG
    assert loaded.header.training == {"seed": 3}
    assert loaded.header.metric == {"t2v": {"R@1": 12.5}}
    texts = torch.randn(4, 32)
    assert torch.equal(loaded.model.align(texts), model.align(texts))


def test_half_precision_is_half_the_size(saved, tmp_path, tiny_encoder):
    path, model = saved
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, model, header_for(tiny_encoder), tiny_encoder.fingerprint(), half=True)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    texts = torch.randn(4, 32)
    aligned = load_checkpoint(half, tiny_encoder).model.align(texts)
    torch.testing.assert_close(aligned, model.align(texts), atol=0.05, rtol=0.01)


def test_refuses_another_method(saved, tiny_encoder):
    with pytest.raises(CheckpointError, match="of the method 'dits', not 'xpool'"):
        load_checkpoint(saved[0], tiny_encoder, "xpool")


def test_refuses_another_encoder(saved, tmp_path):
    write_open_clip_folder(tmp_path / "other", seed=5)
    other = load_encoder(f"local-dir:{tmp_path / 'other'}", device="cpu")
    with pytest.raises(CheckpointError, match="trained for the encoder tiny-"):
        load_checkpoint(saved[0], other, "dits")


@pytest.mark.parametrize("changes", [{"quick_gelu": True}, {"dim": 512}, {"encoder": "ViT-B-32/openai"}])
def test_refuses_a_header_that_does_not_fit(tmp_path, tiny_encoder, changes):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, RetrievalModel(CONFIG), header_for(tiny_encoder, **changes), tiny_encoder.fingerprint())
    with pytest.raises(CheckpointError, match="cannot be used with"):
        load_checkpoint(path, tiny_encoder)


def test_refuses_a_fingerprint_that_does_not_fit(tmp_path, tiny_encoder):
    """The same name, shapes and activation, but other weights."""
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, RetrievalModel(CONFIG), header_for(tiny_encoder), -tiny_encoder.fingerprint())
    with pytest.raises(CheckpointError, match="cannot be used with"):
        load_checkpoint(path, tiny_encoder)


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_refuses_truncated_files(saved, tiny_encoder, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"damaged.*restore the file"):
        load_checkpoint(path, tiny_encoder)


def test_refuses_missing_files(tmp_path, tiny_encoder):
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_checkpoint(tmp_path / "none.safetensors", tiny_encoder)


def test_refuses_safetensors_of_others(tmp_path, tiny_encoder):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not written by this program"):
        load_checkpoint(tmp_path / "x.safetensors", tiny_encoder)


def test_refuses_a_newer_format(saved, tmp_path, tiny_encoder):
    tensors = load_file(saved[0])
    values = {"format": 99, **asdict(header_for(tiny_encoder))}
    save_file(tensors, tmp_path / "new.safetensors", metadata={"dits": json.dumps(values)})
    with pytest.raises(CheckpointError, match="newer version"):
        load_checkpoint(tmp_path / "new.safetensors", tiny_encoder)


@pytest.mark.parametrize("header", ["5", "[]", "{}", '{"format": 1, "encoder": []}', "not JSON", '{"format": "x"}'])
def test_refuses_headers_that_make_no_sense(saved, tmp_path, tiny_encoder, header):
    save_file(load_file(saved[0]), tmp_path / "x.safetensors", metadata={"dits": header})
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "x.safetensors", tiny_encoder)


@pytest.mark.parametrize("config", [[], {}, {"method": "dits"}, CONFIG.as_dict() | {"pooling": {"dim": 64}}])
def test_refuses_configurations_that_make_no_sense(tmp_path, tiny_encoder, config):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, RetrievalModel(CONFIG), header_for(tiny_encoder, config=config), tiny_encoder.fingerprint())
    with pytest.raises(CheckpointError, match="do not fit its own configuration"):
        load_checkpoint(path, tiny_encoder)


def test_refuses_weights_that_miss_a_tensor(saved, tmp_path, tiny_encoder):
    tensors = load_file(saved[0])
    tensors.pop("pooling.key.weight")
    with safe_open(saved[0], framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "less.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(tmp_path / "less.safetensors", tiny_encoder)


def test_nothing_is_left_when_writing_fails(tmp_path, tiny_encoder):
    folder = tmp_path / "file"
    folder.write_text("in the way")
    with pytest.raises(Exception, match="not a folder"):
        save_checkpoint(folder / "x.safetensors", RetrievalModel(CONFIG), header_for(tiny_encoder), torch.zeros(32))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

import pytest
import torch

from dits.errors import InputError
from dits.model import ModelConfig, RetrievalModel
from dits.network import AlignmentConfig
from dits.pooling import PoolingConfig
from dits.sampler import SamplerConfig


def model_for(method):
    torch.manual_seed(0)
    network = AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False)
    return RetrievalModel(ModelConfig(method, PoolingConfig(dim=32), SamplerConfig(steps=3), network)).eval()


@pytest.mark.parametrize("method", ["mean", "xpool", "dits"])
def test_a_gallery_scores_as_training_does(method):
    """The exact scorer behind `gallery` and the plain module behind `similarity` are the same function."""
    model, texts, frames = model_for(method), torch.randn(5, 32), torch.randn(7, 4, 32)
    with torch.no_grad():
        expected = model.similarity(texts, frames)
    torch.testing.assert_close(model.gallery(frames).scores(texts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["mean", "xpool"])
def test_without_a_sampler_the_text_stays(method):
    model, texts = model_for(method), torch.randn(3, 32)
    assert torch.equal(model.align(texts), texts)
    assert torch.equal(model.trajectory(texts), texts[None])


def test_pooling_attends_with_the_original_text():
    """DITS and X-Pool with the same pooling weigh the same frames; only the cosine sees the aligned text."""
    dits, xpool = model_for("dits"), model_for("xpool")
    xpool.pooling.load_state_dict(dits.pooling.state_dict())
    text, frames = torch.randn(32), torch.randn(7, 4, 32)
    torch.testing.assert_close(dits.gallery(frames).frame_weights(text), xpool.gallery(frames).frame_weights(text))
    assert not torch.allclose(dits.gallery(frames).scores(text[None]), xpool.gallery(frames).scores(text[None]))


@pytest.mark.parametrize("method", ["mean", "xpool", "dits"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_ranks_as_the_cpu_does(method):
    model, texts, frames = model_for(method), torch.randn(5, 32), torch.randn(7, 4, 32)
    expected = model.gallery(frames).scores(texts)
    on_gpu = model.to("cuda").gallery(frames)
    torch.testing.assert_close(on_gpu.scores(texts), expected, atol=1e-4, rtol=0)
    assert on_gpu.frame_weights(texts[0]).device.type == on_gpu.best_frames(texts[0]).device.type == "cpu"


def test_configurations_survive_json_and_refuse_nonsense():
    config = model_for("dits").config
    assert ModelConfig.from_dict(config.as_dict()) == config
    with pytest.raises(InputError, match="no method 'magic'"):
        ModelConfig("magic")
    with pytest.raises(InputError, match="cannot be read"):
        ModelConfig.from_dict({"method": "dits"})

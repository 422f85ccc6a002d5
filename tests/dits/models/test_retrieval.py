import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dits.common.errors import InputError
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.models.sampler import SamplerConfig
from dits.scoring.exact import BLOCK
from dits.scoring.gallery import build_gallery, derive


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
    torch.testing.assert_close(build_gallery(model, frames).scores(texts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["mean", "xpool", "dits", "tmass"])
def test_a_gallery_of_a_map_of_a_file_computes_nothing_and_copies_nothing(method, tmp_path, monkeypatch):
    """With what was derived in another run: the same scores and frames, to the last bit."""
    model, texts = model_for(method), torch.randn(5, 32)
    np.save(tmp_path / "frames.npy", torch.randn(40, 12, 32).half().numpy())
    frames = torch.from_numpy(np.load(tmp_path / "frames.npy", mmap_mode="c"))
    computed = build_gallery(model, frames)
    save_file(derive(model, frames), tmp_path / "derived.safetensors")
    monkeypatch.setattr("dits.scoring.gallery.derive", None)  # not to be called
    kept = build_gallery(model, frames, load_file(tmp_path / "derived.safetensors"))
    scores = kept.scores(texts)
    assert torch.equal(scores, computed.scores(texts))
    assert torch.equal(kept.best_frames(texts[0]), computed.best_frames(texts[0]))
    with torch.no_grad():
        torch.testing.assert_close(scores, model.similarity(texts, frames.float()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["mean", "xpool", "dits", "tmass"])
def test_a_gallery_answers_for_some_of_its_videos_as_for_all(method):
    model, texts, frames = model_for(method), torch.randn(5, 32), torch.randn(40, 12, 32).half()
    gallery, rows = build_gallery(model, frames), torch.tensor([31, 0, 7])
    text = texts[0]
    torch.testing.assert_close(gallery.frame_weights(text, rows), gallery.frame_weights(text)[rows])
    assert torch.equal(gallery.best_frames(text, rows), gallery.best_frames(text)[rows])
    scores, best = gallery.scores(texts), gallery.top(texts, 6)
    assert torch.equal(best.rows, scores.argsort(dim=1, descending=True, stable=True)[:, :6])
    assert torch.equal(best.scores, scores.gather(1, best.rows))
    torch.testing.assert_close(best.deviation, scores.std(dim=1))


@pytest.mark.parametrize("method", ["mean", "xpool", "dits"])
def test_parts_of_a_gallery_score_as_the_whole_to_the_last_bit(method):
    model, texts, frames = model_for(method), torch.randn(3, 32), torch.randn(BLOCK + 70, 2, 32).half()
    parts = [build_gallery(model, frames[part]).scores(texts) for part in (slice(0, BLOCK), slice(BLOCK, None))]
    assert torch.equal(torch.cat(parts, dim=1), build_gallery(model, frames).scores(texts))


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
    torch.testing.assert_close(
        build_gallery(dits, frames).frame_weights(text), build_gallery(xpool, frames).frame_weights(text)
    )
    assert not torch.allclose(
        build_gallery(dits, frames).scores(text[None]), build_gallery(xpool, frames).scores(text[None])
    )


@pytest.mark.parametrize("method", ["mean", "xpool", "dits"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_ranks_as_the_cpu_does(method):
    model, texts, frames = model_for(method), torch.randn(5, 32), torch.randn(7, 4, 32)
    expected = build_gallery(model, frames).scores(texts)
    on_gpu = build_gallery(model.to("cuda"), frames)
    torch.testing.assert_close(on_gpu.scores(texts), expected, atol=1e-4, rtol=0)
    assert on_gpu.frame_weights(texts[0]).device.type == on_gpu.best_frames(texts[0]).device.type == "cpu"


def test_configurations_survive_json_and_refuse_nonsense():
    config = model_for("dits").config
    assert ModelConfig.from_dict(config.as_dict()) == config
    with pytest.raises(InputError, match="no method 'magic'"):
        ModelConfig("magic")
    with pytest.raises(InputError, match="cannot be read"):
        ModelConfig.from_dict({"method": "dits"})

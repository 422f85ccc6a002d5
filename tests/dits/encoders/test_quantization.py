import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from dits.cli.parser import main
from dits.common.errors import EncoderError
from dits.encoders.openclip import BUNDLED_FOLDER, load_encoder
from dits.encoders.quantization import dequantize, quantize, quantize_folder
from dits.encoders.towers import WEIGHTS
from dits.video.sampling import sample_frames

SENTENCES = ["a dog on a skateboard", "two boxers in a ring", "a lighthouse in a storm"]


def test_the_error_of_an_entry_is_at_most_half_a_step():
    generator = torch.Generator().manual_seed(0)
    weights = {
        "conv.weight": torch.randn(6, 4, 3, 3, generator=generator).half(),
        "linear.weight": torch.randn(5, 7, generator=generator) * torch.logspace(-6, 3, 5)[:, None],
        "zero.weight": torch.zeros(2, 3),
        "bias": torch.randn(7, generator=generator),
        "counter": torch.tensor(3),
    }
    small = quantize(weights)
    assert small["conv.weight"].dtype == torch.int8
    back = dequantize(small)
    assert set(back) == set(weights)
    assert torch.equal(back["bias"], weights["bias"])
    assert torch.equal(back["counter"], weights["counter"])
    for name in ("conv.weight", "linear.weight", "zero.weight"):
        value = weights[name].float()
        step = value.flatten(1).abs().amax(dim=1).view(-1, *[1] * (value.ndim - 1)) / 127
        assert ((back[name] - value).abs() <= step / 2 * 1.001 + 1e-9).all()


def test_the_bundled_encoder_in_int8_is_half_the_size_and_nearly_the_same(demo, tmp_path, capsys):
    assert main(["quantize", str(BUNDLED_FOLDER), "--out", str(tmp_path / "int8")]) == 0
    assert f"local-dir:{tmp_path / 'int8'}" in capsys.readouterr().out
    whole, small = (path.stat().st_size for path in (BUNDLED_FOLDER / WEIGHTS, tmp_path / "int8" / WEIGHTS))
    assert small < 0.52 * whole
    ours, theirs = load_encoder(device="cpu"), load_encoder(f"local-dir:{tmp_path / 'int8'}", device="cpu")
    assert ours.id != theirs.id
    cosines = F.cosine_similarity(ours.encode_text(SENTENCES), theirs.encode_text(SENTENCES))
    assert cosines.min() > 0.99
    pictures = np.concatenate([sample_frames(clip.path, 1, size=300).frames[:, :280, :280] for clip in demo.clips[:4]])
    frames = ours.preprocess(pictures)[None]
    assert F.cosine_similarity(ours.encode_frames(frames), theirs.encode_frames(frames), dim=-1).min() > 0.97


def test_refuses_folders_without_an_encoder_or_with_a_quantized_one(tiny_folder, tmp_path):
    quantize_folder(tiny_folder, tmp_path / "small")
    with pytest.raises(EncoderError, match="is in int8 already"):
        quantize_folder(tmp_path / "small", tmp_path / "smaller")
    with pytest.raises(EncoderError, match="is missing or damaged"):
        quantize_folder(tmp_path / "nothing", tmp_path / "out")


def test_weights_in_int8_of_another_model_are_refused(tiny_folder, tmp_path):
    quantize_folder(tiny_folder, tmp_path / "small")
    weights = load_file(tmp_path / "small" / WEIGHTS)
    weights.pop("positional_embedding")
    save_file(weights, tmp_path / "small" / WEIGHTS, metadata={"format": "dits-int8"})
    with pytest.raises(EncoderError, match="damaged or belong to another model"):
        load_encoder(f"local-dir:{tmp_path / 'small'}", device="cpu")

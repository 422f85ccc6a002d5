import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from dits.bundled_encoder.pair_embeddings import concatenate, embed_pairs
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, write_shards
from dits.cli.parser import main
from dits.models.pooling import PoolingConfig, XPool
from dits.training.trainer import PairData


def pair(number, count, source="templates"):
    rng = np.random.default_rng(number)
    pictures = tuple(
        encode_picture(Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))) for _ in range(count)
    )
    return Pair(source, "p 1", f"{number}", "MIT", "g", (f"thing {number}", "noise"), pictures)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


def test_a_still_is_a_clip_of_one_frame(tiny_encoder):
    data = embed_pairs([pair(0, 1), pair(1, 5), pair(2, 12)], tiny_encoder)
    assert data.frames.shape == (3, 12, tiny_encoder.dim)
    assert data.video_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.captions == ("thing 0", "noise", "thing 1", "noise", "thing 2", "noise")
    assert (data.frames[0] == data.frames[0, :1]).all()
    assert len(torch.unique(data.frames[1], dim=0)) == 5
    assert len(torch.unique(data.frames[2], dim=0)) == 12
    torch.testing.assert_close(data.texts[2], tiny_encoder.encode_text(["thing 1"])[0])


def test_repeating_frames_leaves_pooling_as_it_is(tiny_encoder):
    """X-Pool of a clip of 3 frames and of the same frames four times each."""
    data = embed_pairs([pair(3, 3)], tiny_encoder)
    pool = XPool(PoolingConfig(dim=tiny_encoder.dim)).eval()
    frames = data.frames[:, ::4]
    with torch.inference_mode():
        torch.testing.assert_close(pool(data.texts[:1], data.frames), pool(data.texts[:1], frames))


def test_embeddings_are_cached_by_encoder_and_pictures(tiny_encoder, tmp_path):
    pairs = [pair(0, 2), pair(1, 1)]
    first = embed_pairs(pairs, tiny_encoder)
    folder = tmp_path / "cache" / "pair-embeddings"
    assert len(list(folder.iterdir())) == 2  # pictures and texts
    again = embed_pairs([dataclasses.replace(p, texts=("other",)) for p in pairs], tiny_encoder)
    assert len(list(folder.iterdir())) == 3
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.texts[0], again.texts[0])
    embed_pairs(pairs[:1], tiny_encoder)
    assert len(list(folder.iterdir())) == 5


def test_texts_keep_their_order_whatever_their_length(tiny_encoder):
    """Texts of about the same length share a batch."""
    texts = ("a long sentence with many words in it", "cat", "a dog runs")
    expected = torch.cat([tiny_encoder.encode_text([text]) for text in texts])
    data = embed_pairs([dataclasses.replace(pair(0, 1), texts=texts)], tiny_encoder)
    torch.testing.assert_close(data.texts, expected, atol=1e-5, rtol=1e-5)


def test_concatenated_data_keeps_captions_with_their_videos():
    one = PairData(torch.zeros(3, 2), torch.zeros(2, 12, 2), np.array([0, 1, 1]), ("a", "b", "c"))
    two = PairData(torch.ones(2, 2), torch.ones(1, 12, 2), np.array([0, 0]), ("b", "d"))
    both = concatenate(one, two)
    assert both.video_of.tolist() == [0, 1, 1, 2, 2]
    assert (both.frames[both.video_of[3:]] == 1).all()
    assert both.captions == ("a", "b", "c", "b", "d")


def test_the_command_trains_on_pairs_too(tiny_folder, tiny_corpus, tmp_path, capsys):
    write_shards(tmp_path / "pairs", [pair(n, 1) for n in range(6)], {})
    encoder = ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}"]
    out = tmp_path / "x" / "xpool.safetensors"
    command = ["train", "xpool", *encoder, "--out", str(out), "--epochs", "1", "--pairs", str(tmp_path / "pairs")]
    assert main([*command, "--sources", "templates"]) == 0
    assert out.is_file()
    assert main([*command, "--sources", "emoji"]) == 2
    assert "holds no pairs of emoji" in capsys.readouterr().err

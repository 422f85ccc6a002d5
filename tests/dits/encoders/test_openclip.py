import json
import re
import threading
from contextlib import contextmanager

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dits.common.errors import EncoderError
from dits.encoders.openclip import BUNDLED_FOLDER, load_encoder
from tests.conftest import TINY, write_open_clip_folder

SENTENCES = ["a dog runs", "two people cook dinner in a small kitchen", "snow"]


def random_frames(count=5, height=40, width=64):
    return np.random.default_rng(0).integers(0, 256, size=(count, height, width, 3), dtype=np.uint8)


def test_text_embeddings_equal_open_clip(tiny_folder, tiny_encoder):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tiny_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tiny_folder}")(SENTENCES)
    with torch.no_grad():
        expected = model.eval().encode_text(tokens)
    torch.testing.assert_close(tiny_encoder.encode_text(SENTENCES), expected)


def test_frame_embeddings_equal_open_clip(tiny_folder, tiny_encoder):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tiny_folder}")
    frames = random_frames()
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(Image.fromarray(f)) for f in frames]))
    embedded = tiny_encoder.encode_frames(tiny_encoder.preprocess(frames)[None])
    assert embedded.shape == (1, 5, 32)
    torch.testing.assert_close(embedded[0], expected)


def repeating_pixels(encoder, counts, seed=0):
    """Pixels (1, F, 3, H, W) of noise, of which each frame is repeated `counts` times."""
    height, width = encoder.transform.size
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (len(counts), 3, height, width), generator=generator, dtype=torch.uint8)
    return frames.repeat_interleave(torch.tensor(counts), dim=0)[None]


@contextmanager
def count_images(encoder):
    """Counts the images that go through the encoder's image tower."""
    sizes = []
    hook = encoder.module.visual.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        hook.remove()


@pytest.mark.parametrize("counts", [[12], [6, 6], [3, 3, 3, 3], [2] * 6, [1, 5, 1, 4, 1], [1] * 11 + [2]])
def test_repeated_frames_are_embedded_once_with_the_same_result(tiny_encoder, counts):
    pixels = repeating_pixels(tiny_encoder, counts)
    every = tiny_encoder.encode_frames(tiny_encoder.transform.normalise(pixels))
    with count_images(tiny_encoder) as sizes:
        once = tiny_encoder.encode_pixels(pixels)
    assert sum(sizes) == len(counts)
    assert once.shape == every.shape
    torch.testing.assert_close(once, every, atol=1e-5, rtol=1e-5)  # batches of other sizes differ in their last bits
    torch.testing.assert_close(once.half(), every.half(), atol=2**-10, rtol=2**-10)


def test_twelve_different_frames_are_embedded_as_ever(tiny_encoder):
    pixels = repeating_pixels(tiny_encoder, [1] * 12)
    with count_images(tiny_encoder) as sizes:
        embeddings = tiny_encoder.encode_pixels(pixels)
    assert sizes == [3, 3, 3, 3]
    assert torch.equal(embeddings, tiny_encoder.encode_frames(tiny_encoder.transform.normalise(pixels)))


def test_frames_are_compared_across_the_clips_of_a_batch(tiny_encoder):
    clips = torch.cat([repeating_pixels(tiny_encoder, [2, 2], seed) for seed in (1, 2)])
    clips[1, :2] = clips[0, 3]  # the second clip starts as the first one ends
    with count_images(tiny_encoder) as sizes:
        embeddings = tiny_encoder.encode_pixels(clips)
    assert sum(sizes) == 3
    every = tiny_encoder.encode_frames(tiny_encoder.transform.normalise(clips))
    torch.testing.assert_close(embeddings, every, atol=1e-5, rtol=1e-5)


def test_bundled_encoder_equals_open_clip_on_its_folder():
    """Built by OpenCLIP alone, with padding; our encoder leaves out unnecessary padding."""
    config = json.loads((BUNDLED_FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_model_name"] = str(BUNDLED_FOLDER)
    model = open_clip.CustomTextCLIP(**config)
    weights = load_file(BUNDLED_FOLDER / "open_clip_model.safetensors")
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    )
    tokens = open_clip.get_tokenizer(f"local-dir:{BUNDLED_FOLDER}")(SENTENCES)
    transform = open_clip.image_transform(260, is_train=False, mean=[0.5] * 3, std=[0.5] * 3)
    encoder, frames = load_encoder(device="cpu"), random_frames(2, 300, 280)
    with torch.no_grad():
        text = model.eval().encode_text(tokens)
        image = model.encode_image(torch.stack([transform(Image.fromarray(f)) for f in frames]))
    torch.testing.assert_close(encoder.encode_text(SENTENCES), text, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.encode_frames(encoder.preprocess(frames)[None])[0], image, atol=1e-4, rtol=1e-4)


def test_bundled_embeddings_have_clip_like_norms():
    encoder = load_encoder(device="cpu")
    assert encoder.dim == 512
    assert 5 < float(encoder.encode_text(SENTENCES).norm(dim=-1).mean()) < 20


def test_a_sentence_is_embedded_the_same_alone_and_in_a_batch():
    encoder = load_encoder(device="cpu")
    alone = torch.cat([encoder.encode_text([sentence]) for sentence in SENTENCES])
    torch.testing.assert_close(encoder.encode_text(SENTENCES), alone, atol=1e-4, rtol=1e-4)


def test_bundled_file_is_small():
    assert (BUNDLED_FOLDER / "open_clip_model.safetensors").stat().st_size < 60e6


@pytest.mark.parametrize("kind", ["bundled", "tiny"])
def test_returns_where_a_long_text_is_cut(kind, tiny_encoder):
    encoder = load_encoder(device="cpu") if kind == "bundled" else tiny_encoder
    words = [f"word{n}" for n in range(400)]
    assert encoder.cut_text("a short query") is None
    cut = encoder.cut_text(" ".join(words))
    kept = len(cut.split())
    assert words[:kept] == cut.split()
    assert torch.equal(encoder.encode_text([cut]), encoder.encode_text([" ".join(words)]))
    shorter = encoder.encode_text([" ".join(words[: kept - 1])])
    assert not torch.equal(shorter, encoder.encode_text([cut]))


def test_a_long_text_without_spaces_is_cut_too(tiny_encoder):
    cut = tiny_encoder.cut_text("ab1" * 3000)
    assert 0 < len(cut) < 9000


def test_a_text_that_just_fits_is_not_cut(tiny_encoder):
    assert tiny_encoder.cut_text(" ".join(["dog"] * 75)) is None
    assert tiny_encoder.cut_text(" ".join(["dog"] * 76)) is not None


def test_weights_from_a_file_are_those_of_the_folder(tmp_path):
    """NAME/FILE.safetensors: an architecture that OpenCLIP knows by name, with weights on disk."""
    (tmp_path / "tiny-quickgelu.json").write_text(json.dumps(TINY | {"quick_gelu": True}))
    open_clip.add_model_config(tmp_path / "tiny-quickgelu.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-quickgelu", load_weights=False)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    encoder = load_encoder(f"tiny-quickgelu/{path}", device="cpu")
    assert encoder.quick_gelu
    assert encoder.id.startswith("tiny-quickgelu-")
    with torch.no_grad():
        expected = model.eval().encode_text(open_clip.tokenize(SENTENCES))
    torch.testing.assert_close(encoder.encode_text(SENTENCES), expected)


def test_ids_distinguish_weights(tmp_path, tiny_encoder):
    write_open_clip_folder(tmp_path / "tiny", seed=1)
    other = load_encoder(f"local-dir:{tmp_path / 'tiny'}", device="cpu")
    assert other.id != tiny_encoder.id
    assert other.id.startswith("tiny-")


def test_threads_may_share_an_encoder():
    encoder = load_encoder(device="cpu")
    expected = encoder.encode_text(SENTENCES)
    results = []

    def work():
        results.append(all(torch.allclose(encoder.encode_text(SENTENCES), expected, atol=1e-5) for _ in range(5)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsense", "There is no encoder 'nonsense'"),
        ("ViT-B-32", "There is no encoder 'ViT-B-32'"),
        ("ViT-B-32/nonsense", "has no pretrained tag 'nonsense'"),
        ("ViT-B-32/weights.pt", "must be a .safetensors file"),
        ("ViT-B-32/missing.safetensors", "there is no file missing.safetensors"),
        ("local-dir:/nowhere", "give a folder in OpenCLIP's format"),
    ],
)
def test_refuses_what_is_no_encoder(name, says):
    with pytest.raises(EncoderError, match=r"^[^\n]*$") as error:
        load_encoder(name)
    assert says in str(error.value)


def test_refuses_missing_and_truncated_weights(tmp_path):
    write_open_clip_folder(tmp_path)
    weights = tmp_path / "open_clip_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(EncoderError, match=r"damaged or belong to another model.*restore the file"):
        load_encoder(f"local-dir:{tmp_path}")
    weights.unlink()
    with pytest.raises(EncoderError, match="weights are missing"):
        load_encoder(f"local-dir:{tmp_path}")


def test_refuses_a_missing_or_truncated_tokenizer(tmp_path):
    for path in BUNDLED_FOLDER.iterdir():
        (tmp_path / path.name).symlink_to(path)
    tokenizer = tmp_path / "tokenizer.json"
    text = tokenizer.read_text()
    tokenizer.unlink()
    with pytest.raises(EncoderError, match="tokenizer is missing"):
        load_encoder(f"local-dir:{tmp_path}")
    tokenizer.write_text(text[:1000])
    with pytest.raises(EncoderError, match="damaged"):
        load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("config", ["5", "[]", '{"model_cfg": []}', '{"model_cfg": {"text_cfg": null}}', "{"])
def test_refuses_invalid_configurations(tmp_path, config):
    write_open_clip_folder(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(EncoderError, match="not an OpenCLIP configuration"):
        load_encoder(f"local-dir:{tmp_path}")


def test_reports_the_share_of_unknown_tokens(tiny_encoder):
    encoder = load_encoder(device="cpu")
    assert encoder.unknown_share("a dog") == 0
    assert encoder.unknown_share("🐶") == 1
    assert 0 < encoder.unknown_share("a dog 🐶") < 0.5
    assert tiny_encoder.unknown_share("🐶") == 0  # CLIP's own tokenizer spells it in bytes


def test_many_texts_are_embedded_in_batches():
    encoder = load_encoder(device="cpu")
    texts = [f"dog number {n}" for n in range(300)]
    embeddings = encoder.encode_text(texts)
    assert embeddings.shape == (300, 512)
    torch.testing.assert_close(embeddings[299:], encoder.encode_text(texts[299:]), atol=1e-4, rtol=1e-4)


def test_refuses_weights_of_another_model(tmp_path):
    write_open_clip_folder(tmp_path)
    config = TINY | {"embed_dim": 16}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with pytest.raises(EncoderError, match="belong to another model"):
        load_encoder(f"local-dir:{tmp_path}")


def test_reports_an_unreachable_hub(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    says = r"could not be downloaded.*ViT-B-32/FILE\.safetensors.*local-dir:FOLDER.*'bundled'\.$"
    with pytest.raises(EncoderError, match=says) as error:
        load_encoder("ViT-B-32/laion2b_s34b_b79k")
    assert len(re.findall(r"\.(\s|$)", str(error.value))) == 1  # one sentence
    with pytest.raises(EncoderError, match=r"hf-hub:org/model could not be downloaded.* NAME/FILE\.safetensors"):
        load_encoder("hf-hub:org/model")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_file_of_weights_may_still_need_the_hub(monkeypatch, tmp_path):
    """OpenCLIP builds this text tower from a configuration on the hub: the weights are not the problem."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_open_clip_folder(tmp_path)
    with pytest.raises(EncoderError, match=r"needs more than its weights.*local-dir:FOLDER"):
        load_encoder(f"roberta-ViT-B-32/{tmp_path / 'open_clip_model.safetensors'}")

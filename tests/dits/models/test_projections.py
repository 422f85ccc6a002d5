"""The projections of real encoders: what they make of the towers' features is what the encoder computes."""

import pytest
import torch

from dits.common.errors import EncoderError
from dits.encoders.openclip import load_encoder
from dits.models.projections import Projections, frame_features, text_features, without_projections
from tests.conftest import TINY, write_open_clip_folder

SENTENCES = ["a dog runs along the beach", "two people are talking about something in a kitchen", "snow"]


@pytest.fixture(scope="module", params=["bundled", "CLIP"])
def encoder(request, tiny_folder):
    """Two towers of other libraries with linear layers, and OpenCLIP's own towers with matrices."""
    return load_encoder("bundled" if request.param == "bundled" else f"local-dir:{tiny_folder}", device="cpu")


def pixels(encoder):
    size = (1, 2, 3, encoder.frame_size, encoder.frame_size)
    return torch.randint(256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_projected_features_are_the_embeddings(encoder):
    projections, frames = Projections.of(encoder), pixels(encoder)
    texts, videos = projections(text_features(encoder, SENTENCES), frame_features(encoder, frames))
    torch.testing.assert_close(texts, encoder.encode_text(SENTENCES), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(videos, encoder.encode_pixels(frames), atol=1e-4, rtol=1e-4)
    (texts.sum() + videos.sum()).backward()
    assert all(parameter.grad is not None for parameter in projections.parameters())


def test_the_encoder_without_projections_is_another_one_with_the_same_towers(encoder):
    before = encoder.encode_text(SENTENCES)
    towers = without_projections(encoder)
    assert towers.id != encoder.id
    assert towers.encode_pixels(pixels(encoder)).shape == (1, 2, towers.dim)
    assert set(towers.module.parameters()) < set(encoder.module.parameters())
    assert torch.equal(encoder.encode_text(SENTENCES), before)


def test_written_projections_are_those_of_the_encoder(tiny_folder):
    encoder = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    projections, frames = Projections.of(encoder), pixels(encoder)
    texts, videos = encoder.encode_text(SENTENCES), encoder.encode_pixels(frames)
    with torch.no_grad():
        projections.text.weight *= 2
        projections.frames.weight *= -3
    assert torch.equal(encoder.encode_text(SENTENCES), texts)  # they are a copy
    projections.write_to(encoder)
    torch.testing.assert_close(encoder.encode_text(SENTENCES), 2 * texts)
    torch.testing.assert_close(encoder.encode_pixels(frames), -3 * videos)


def test_a_tower_that_does_not_end_with_a_linear_map_is_refused(tmp_path):
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}  # pools and projects by attention
    write_open_clip_folder(tmp_path, TINY | {"vision_cfg": resnet})
    encoder = load_encoder(f"local-dir:{tmp_path}", device="cpu")
    with pytest.raises(EncoderError, match="must end with one linear map"):
        Projections.of(encoder)

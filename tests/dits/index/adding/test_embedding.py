"""Segments' embeddings: in full precision what the encoder gives, in reduced precision only where that ranks alike."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import InputError, VideoError
from dits.corpora.corpus import FRAMES
from dits.index.adding.embedding import SegmentEncoder
from dits.index.adding.reader import ReadSegment
from dits.models.pooling import mean_pool


def segments(encoder, count, seed=0):
    """Segments of coloured noise, coarse enough for an encoder to tell apart."""
    generator = torch.Generator().manual_seed(seed)
    height, width = encoder.transform.size
    coarse = torch.randint(0, 256, (count, FRAMES, 3, 4, 4), generator=generator, dtype=torch.uint8)
    pixels = torch.nn.functional.interpolate(coarse.flatten(0, 1).float(), (height, width)).to(torch.uint8)
    return [ReadSegment(0, 1, own.numpy(), np.zeros(FRAMES), b"") for own in pixels.unflatten(0, (count, FRAMES))]


def test_full_precision_is_what_the_encoder_gives(tiny_encoder):
    made = list(SegmentEncoder(tiny_encoder)(segments(tiny_encoder, 3)))
    pixels = torch.from_numpy(np.stack([segment.pixels for segment in segments(tiny_encoder, 3)]))
    expected = tiny_encoder.encode_pixels(pixels)
    np.testing.assert_allclose(np.stack([frames for frames, _ in made]), expected.half(), atol=1e-3)
    np.testing.assert_allclose(np.stack([mean for _, mean in made]), mean_pool(expected), atol=1e-3)


@pytest.mark.parametrize(
    ("precision", "least"),
    [("bf16", 0.995), pytest.param("fp16", 0.999, marks=pytest.mark.slow)],  # a CPU takes minutes for float16
)
def test_reduced_precision_ranks_as_full_precision_does(engine, precision, least):
    """The bundled encoder, on frames of the demo corpus; the texts are its captions."""
    from dits.corpora.clip_loader import ClipReader, read_all

    clips = engine.corpus.clips[:4]
    read = [clip.pixels.numpy() for clip in read_all(clips, ClipReader(engine.encoder.transform))]
    own = [ReadSegment(0, 1, pixels, np.zeros(FRAMES), b"") for pixels in read]
    embed = SegmentEncoder(engine.encoder, precision)
    means = np.stack([mean for _, mean in embed(own)])
    assert embed.notices == []
    full = np.stack([mean for _, mean in SegmentEncoder(engine.encoder)(own)])
    texts = F.normalize(engine.encoder.encode_text([clip.captions[0] for clip in clips]), dim=-1).numpy()
    exactly, reduced = (cosines[:, :, None] - cosines[:, None] for cosines in (texts @ full.T, texts @ means.T))
    assert (reduced[exactly > 0.02] > 0).all()  # of two clips that are not level the same one is nearer
    assert float((full * means).sum(axis=1).min()) > least


class Drifting:
    """An encoder whose reduced precision is of no use."""

    def __init__(self, encoder):
        self._encoder = encoder
        self.device, self.transform = encoder.device, encoder.transform
        self.segment_batch_size = encoder.segment_batch_size

    def encode_pixels(self, pixels):
        embeddings = self._encoder.encode_pixels(pixels)
        return embeddings.flip(-1) if torch.is_autocast_enabled("cpu") else embeddings


def test_a_precision_that_moves_embeddings_too_far_is_given_up(tiny_encoder):
    embed = SegmentEncoder(Drifting(tiny_encoder), "bf16")
    made = [frames for frames, _ in embed(segments(tiny_encoder, 2))]
    expected = [frames for frames, _ in SegmentEncoder(tiny_encoder)(segments(tiny_encoder, 2))]
    np.testing.assert_array_equal(made, expected)
    assert embed.notices == ["Embeddings in bf16 differ too much from fp32: they are computed in fp32."]


def test_embeddings_that_are_no_numbers_are_refused(tiny_encoder, monkeypatch):
    monkeypatch.setattr(tiny_encoder, "encode_pixels", lambda pixels: torch.full((1, FRAMES, 32), torch.inf))
    with pytest.raises(VideoError, match="embedding of a segment is not finite"):
        list(SegmentEncoder(tiny_encoder)(segments(tiny_encoder, 1)))


def test_an_unknown_precision_is_refused(tiny_encoder):
    with pytest.raises(InputError, match="no precision 'fp8'"):
        SegmentEncoder(tiny_encoder, "fp8")

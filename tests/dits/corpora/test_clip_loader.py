from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from dits.common.errors import VideoError
from dits.corpora.clip_loader import ClipReader, read_all, read_clips
from dits.corpora.corpus import Clip
from dits.corpora.embeddings import embed_corpus
from dits.corpora.names import open_corpus
from dits.encoders.transforms import FrameTransform
from dits.video.sampling import sample_frames
from tests.helpers.videos import read_stamps, write_video

CONFIG = {"size": 48, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3), "interpolation": "bicubic"}


def clip_of(path: Path) -> Clip:
    return Clip(path.stem, path, "train", path.stem, ("a clip",))


@pytest.fixture(scope="module")
def stamped(tmp_path_factory):
    """A clip of 120 numbered frames."""
    return clip_of(write_video(tmp_path_factory.mktemp("stamped") / "stamped.mp4", 120))


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [48, (48, 48)])
def test_the_evaluation_transform_is_open_clips_to_the_last_bit(resize_mode, size):
    config = CONFIG | {"size": size, "resize_mode": resize_mode}
    frames = np.random.default_rng(0).integers(0, 256, size=(3, 60, 90, 3), dtype=np.uint8)
    whole = image_transform_v2(PreprocessCfg(**config), is_train=False)
    expected = torch.stack([whole(Image.fromarray(frame)) for frame in frames])
    transform = FrameTransform(config)
    assert torch.equal(transform.normalise(transform.crop(frames)), expected)


def test_a_training_crop_is_the_same_for_all_frames_of_a_clip():
    """Equal frames remain equal; different seeds crop and flip differently."""
    picture = np.random.default_rng(1).integers(0, 256, size=(1, 64, 80, 3), dtype=np.uint8)
    transform, views = FrameTransform(CONFIG), []
    for seed in range(8):
        torch.manual_seed(seed)
        pixels = transform.augment(picture.repeat(5, axis=0))
        assert pixels.shape == (5, 3, 48, 48)
        assert pixels.dtype == torch.uint8
        assert (pixels == pixels[0]).all()
        views.append(pixels[0])
    assert len({view.numpy().tobytes() for view in views}) == 8


def test_a_training_crop_keeps_at_least_half_of_the_picture_and_flips_half_of_the_time():
    """Measured on an image whose red and green values are the column and the row of every pixel."""
    columns, rows = np.meshgrid(np.arange(96), np.arange(96))
    ramp = np.stack([2 * columns, 2 * rows, 0 * rows], axis=-1).astype(np.uint8)[None]
    transform, shares, flipped = FrameTransform(CONFIG), [], 0
    for seed in range(100):
        torch.manual_seed(seed)
        view = transform.augment(ramp)[0].float() / 2
        width = float(view[0, 24, -4] - view[0, 24, 3]) / 41 * 48  # between pixels 3 and -4, there are 41 steps
        height = float(view[1, -4, 24] - view[1, 3, 24]) / 41 * 48
        shares.append(abs(width * height) / 96**2)
        flipped += width < 0
    assert 0.45 < min(shares) < 0.6
    assert 0.85 < max(shares) <= 1.05
    assert 30 <= flipped <= 70


def test_random_frames_come_from_each_segment_and_the_seed_decides(stamped):
    reader = ClipReader(FrameTransform(CONFIG | {"size": 120}), frames=12, random_frames=True)
    seen = set()
    for seed in range(20):
        times = reader.read(stamped, seed).times
        numbers = (times * 30).round().int()
        assert torch.equal(numbers // 10, torch.arange(12, dtype=torch.int32))  # one from each ten
        assert torch.equal(reader.read(stamped, seed).times, times)
        seen |= set((numbers % 10).tolist())
    assert seen == set(range(10))


def test_without_randomness_a_clip_is_read_as_for_embedding(stamped):
    transform = FrameTransform(CONFIG)
    sampled = sample_frames(stamped.path, 12, size=48)
    for seed in (0, 1):
        read = ClipReader(transform).read(stamped, seed)
        assert torch.equal(read.pixels, transform.crop(sampled.frames))
        assert read.times.tolist() == pytest.approx(sampled.times.tolist())


def test_positions_choose_times_within_the_segments(stamped):
    frames, _ = sample_frames(stamped.path, 4, positions=np.array([0.0, 0.5, 0.9, 0.0]))
    assert read_stamps(frames) == [0, 45, 87, 90]


def test_workers_read_what_this_process_reads(tiny_corpus, tiny_encoder):
    """In the same order and with the same randomness; an undecodable clip is replaced by its error."""
    broken = tiny_corpus / "broken.bin"
    broken.write_bytes(b"no video")
    clips = [*open_corpus(str(tiny_corpus)).clips[:4], clip_of(broken)]
    reader = ClipReader(tiny_encoder.transform, frames=4, random_frames=True, augment=True)
    order = [(3, 10), (0, 11), (4, 12), (3, 13), (1, 14)]
    here, there = (list(read_clips(clips, reader, order, workers)) for workers in (0, 2))
    broken.unlink()
    for number, (a, b) in enumerate(zip(here, there, strict=True)):
        if number == 2:
            assert isinstance(a, VideoError)
            assert "broken.bin is not a video" in str(b)
            assert str(a) == str(b)
        else:
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.times, b.times)


def test_embedding_names_the_video_that_cannot_be_decoded(tmp_path, tiny_encoder):
    (tmp_path / "torn.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"torn\.mp4"):
        list(read_all([clip_of(tmp_path / "torn.mp4")], ClipReader(tiny_encoder.transform)))


@pytest.mark.slow
def test_embedding_with_workers_changes_nothing(tiny_corpus, tiny_encoder):
    corpus = open_corpus(str(tiny_corpus))
    here, there = (embed_corpus(corpus, tiny_encoder, workers=workers) for workers in (0, 1))
    assert torch.equal(here.frames, there.frames)
    assert torch.equal(here.times, there.times)

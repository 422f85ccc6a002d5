import io

import numpy as np
import pytest
import torch
from PIL import Image

from dits.bundled_encoder.data import TrainingPairs, drop_words, load_pairs
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, write_shards
from dits.bundled_encoder.pictures import Augmentation, normalise, plain_view
from dits.common.errors import PairsError
from dits.encoders.towers import IMAGE_SIZE


def pair(source="demo", group="g", texts=("a caption",), pictures=1):
    data = tuple(encode_picture(Image.new("RGB", (60, 40), (n, n, n))) for n in range(pictures))
    return Pair(source, "package 1", "file", "MIT", group, texts, data)


def training_pairs(pairs, balance=0.0):
    count = sum(len(p.pictures) for p in pairs)
    features = torch.arange(count).half()[:, None, None].expand(count, 2, 4)
    return TrainingPairs(pairs, features, balance)


def test_drawn_pictures_belong_to_their_pair():
    data = training_pairs([pair(pictures=3), pair(pictures=1), pair(pictures=5)])
    rng = np.random.default_rng(0)
    drawn = np.array([data.draw_pictures(np.array([0, 1, 2]), rng) for _ in range(200)])
    assert [set(column) for column in drawn.T] == [{0, 1, 2}, {3}, {4, 5, 6, 7, 8}]
    features = torch.stack([data.draw_features(np.array([0, 1, 2]), rng) for _ in range(200)])[..., 0]
    assert (features[:, 1] == 3).all()
    assert ((features[:, 0] >= 0) & (features[:, 0] <= 2)).all()
    assert torch.equal(data.mean_features(np.array([0, 2]))[:, 0], torch.tensor([1.0, 6.0]))


def test_a_batch_holds_each_pair_once_and_only_from_its_sources():
    data = training_pairs([pair("demo") for _ in range(10)] + [pair("emoji") for _ in range(10)])
    rows = data.draw(("demo", "templates"), 50, np.random.default_rng(0))
    assert sorted(rows) == list(range(10))
    assert len(data.draw(("wallpapers",), 5, np.random.default_rng(0))) == 0


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.1), (1.0, 0.5)])
def test_balance_moves_draws_from_pairs_to_sources(balance, share):
    data = training_pairs([pair("demo")] * 10 + [pair("templates")] * 90, balance)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([data.draw(("demo", "templates"), 1, rng) for _ in range(2000)])
    assert (drawn < 10).mean() == pytest.approx(share, abs=0.03)


def test_word_dropout_keeps_order_and_at_least_two_words():
    rng = np.random.default_rng(0)
    text = "one two three four five six"
    results = [drop_words(text, 0.5, rng).split() for _ in range(300)]
    order = text.split()
    assert all(len(words) >= 2 and words == [w for w in order if w in words] for words in results)
    assert np.mean([len(words) for words in results]) == pytest.approx(3, abs=0.5)
    assert drop_words("only three words", 0.9, rng) == "only three words"


def test_held_out_stamps_are_left_out_of_training(tmp_path):
    pairs = [pair(), pair("stamps", "animals/birds"), pair("stamps", "vehicles/ship"), pair("stamps", "clothes/hats/x")]
    write_shards(tmp_path, pairs, {})
    assert [p.group for p in load_pairs(tmp_path, ("demo", "stamps", "classes"))] == ["g", "vehicles/ship"]
    with pytest.raises(PairsError, match="holds no pairs of emoji: prepare them"):
        load_pairs(tmp_path, ("demo", "emoji"))


def drawing():
    """A red square in the middle of transparency."""
    image = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (24, 8, 40, 24))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_plain_view_pads_drawings_with_white_and_crops_photographs():
    view = plain_view(drawing())
    assert view.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    assert view[:, 5, 5].tolist() == [255, 255, 255]
    assert view[:, IMAGE_SIZE // 2, IMAGE_SIZE // 2].tolist() == [255, 0, 0]
    wide = Image.new("RGB", (300, 100), "blue")
    wide.paste((255, 255, 255), (0, 0, 90, 100))  # cropped away
    assert plain_view(encode_picture(wide))[2].float().mean() > 240
    assert plain_view(encode_picture(wide))[0].float().mean() < 15


def test_views_vary_and_repeat_with_the_seed():
    photo = encode_picture(Image.effect_noise((300, 260), 80).convert("RGB"))

    def views(seed):
        augment = Augmentation([photo], seed)
        torch.manual_seed(seed)
        return [augment(drawing()) for _ in range(8)] + [augment(photo)]

    first, again, other = views(1), views(1), views(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({tuple(view[:, 0, 0].tolist()) for view in first}) > 4  # backdrops differ


def test_normalised_views_run_from_minus_one_to_one():
    views = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 255.0)]).to(torch.uint8)
    assert normalise(views).unique().tolist() == [-1.0, 1.0]

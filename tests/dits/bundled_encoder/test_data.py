import io

import numpy as np
import pytest
import torch
from PIL import Image

from dits.bundled_encoder.data import TowerRows, TrainingPairs, drop_words, in_fold, load_pairs, same_text
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, write_shards
from dits.bundled_encoder.pictures import Augmentation, normalise, plain_view
from dits.common.errors import PairsError
from dits.encoders.towers import IMAGE_SIZE


def pair(source="demo", group="g", texts=("a caption",), pictures=1):
    data = tuple(encode_picture(Image.new("RGB", (60, 40), (n, n, n))) for n in range(pictures))
    return Pair(source, "package 1", "file", "MIT", group, texts, data)


def training_pairs(pairs, balance=0.0, crops=0):
    """Every view has its own number as all its features."""
    count = sum(1 + crops if len(p.pictures) == 1 else len(p.pictures) for p in pairs)
    features = torch.arange(count).half()[:, None].expand(count, 4)
    return TrainingPairs(pairs, TowerRows(features, (), crops, 0), balance)


def test_drawn_pictures_and_views_belong_to_their_pair():
    """A still has two views with one crop, and a clip those of its frames."""
    data = training_pairs([pair(pictures=3), pair(pictures=1), pair(pictures=5)], crops=1)
    rng = np.random.default_rng(0)
    rows = np.array([0, 1, 2])
    drawn = np.array([data.draw_pictures(rows, rng) for _ in range(200)])
    assert [set(column) for column in drawn.T] == [{0, 1, 2}, {3}, {4, 5, 6, 7, 8}]
    views = np.array([data.draw_views(rows, rng) for _ in range(300)])
    expected = [{0, 1, 2}, {3, 4}, {5, 6, 7, 8, 9}]
    assert [set(views[:, 0, n]) for n in range(3)] == [set(views[:, 1, n]) for n in range(3)] == expected
    assert (views[:, 0] != views[:, 1]).all()
    features = torch.stack([data.draw_features(rows, rng) for _ in range(200)])[..., 0]
    assert (features[:, 1] == 3.5).all()
    assert ((features[:, 0] > 0) & (features[:, 0] < 2)).all()
    assert torch.equal(data.mean_features(np.array([0, 2]))[:, 0], torch.tensor([1.0, 7.0]))


def test_a_pair_with_one_view_is_drawn_twice():
    data = training_pairs([pair(), pair()])
    assert np.array_equal(data.draw_views(np.array([1, 0]), np.random.default_rng(0)), [[1, 0], [1, 0]])


def test_hard_negatives_are_the_neighbours_of_the_other_pairs_of_a_batch():
    """Texts on a circle: the neighbours of a pair are the pairs with the next numbers."""
    data = training_pairs([pair("msrvtt") for _ in range(200)])
    angles = torch.arange(200) * (2 * torch.pi / 200)
    data.find_neighbours(torch.stack([angles.cos(), angles.sin()], dim=1), ("msrvtt",), count=4)
    rows = data.draw(("msrvtt",), 40, np.random.default_rng(0), hard=0.5)
    assert len(set(rows)) == 40
    seeds, hardest = rows[:20], rows[20:]
    apart = np.abs(seeds[None] - hardest[:, None]) % 200
    assert (np.minimum(apart, 200 - apart).min(axis=1) <= 2).all()


def test_equal_texts_are_never_negatives():
    assert same_text(["a", "b", "c"]) is None
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert torch.equal(same_text(["a man sings", "b", "a man sings", "c"]), expected)


def test_folds_divide_photographs_by_group_and_leave_drawings_whole():
    pairs = [pair("msrvtt", f"video{n // 2}") for n in range(400)] + [pair("emoji", f"{n}") for n in range(20)]
    folds = [[in_fold(p, f"{number}/3") for p in pairs] for number in (1, 2, 3)]
    assert [sum(column) for column in zip(*folds, strict=True)] == [1] * 400 + [0] * 20
    assert all(80 < sum(fold) < 190 for fold in folds)
    assert all(fold[n] == fold[n + 1] for fold in folds for n in range(0, 400, 2))
    assert not any(in_fold(p, "") for p in pairs)


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

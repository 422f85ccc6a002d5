import json
import shutil

import numpy as np
import pytest
import torch

from dits.bundled_encoder.cross_fitting import cross_fitted_pairs, fold_of, orthogonal_map
from dits.bundled_encoder.data import in_fold
from dits.bundled_encoder.pairs.shards import Pair, write_shards
from dits.common.errors import InputError
from dits.encoders.openclip import BUNDLED_FOLDER, load_encoder
from dits.training.trainer import PairData


def test_the_orthogonal_map_finds_a_rotation_and_keeps_cosines():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 8, generator=generator)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    torch.testing.assert_close(orthogonal_map(points, points @ rotation), rotation, atol=1e-5, rtol=1e-5)
    noisy = orthogonal_map(points, points @ rotation + torch.randn(50, 8, generator=generator))
    torch.testing.assert_close(noisy @ noisy.T, torch.eye(8), atol=1e-5, rtol=1e-5)


@pytest.fixture
def folds(tmp_path, monkeypatch):
    """Folders of two encoders, linked to the bundled one, with records of the folds that they were trained without."""
    paths = []
    for number in (1, 2):
        folder = tmp_path / f"fold-{number}"
        shutil.copytree(BUNDLED_FOLDER, folder, copy_function=lambda source, target: shutil.os.link(source, target))
        (folder / "training.json").unlink()
        (folder / "training.json").write_text(json.dumps({"config": {"fold": f"{number}/2"}}))
        paths.append(folder)
    return paths


def test_every_photograph_is_embedded_by_the_encoder_that_has_not_seen_it(tmp_path, folds):
    """A stand-in for embedding records who embeds what, and turns the space of each encoder by its own rotation."""
    pairs = [Pair("msrvtt", "p", f"{n}", "l", f"video{n}", (f"text {n}",), (b"picture",)) for n in range(40)]
    write_shards(tmp_path / "pairs", pairs, {})
    encoder = load_encoder()
    generator = torch.Generator().manual_seed(0)
    points = {p.texts[0]: torch.randn(encoder.dim, generator=generator) for p in pairs}
    turns = [torch.linalg.qr(torch.randn(encoder.dim, encoder.dim, generator=generator))[0] for _ in folds]
    embedded = []

    def embed(members, own, progress):
        turn = torch.eye(encoder.dim) if own is encoder else turns[len(embedded) // 2]
        if own is not encoder:
            embedded.append([p.texts[0] for p in members])
        rows = torch.stack([points[p.texts[0]] for p in members]) @ turn
        captions = tuple(p.texts[0] for p in members)
        return PairData(rows, rows[:, None].repeat(1, 3, 1), np.arange(len(members)), captions)

    data = cross_fitted_pairs(tmp_path / "pairs", ["msrvtt"], encoder, folds[::-1], embed=embed)
    for number in (1, 2):
        unseen = {p.texts[0] for p in pairs if in_fold(p, f"{number}/2")}
        anchors, own = embedded[2 * (number - 1)], embedded[2 * (number - 1) + 1]
        assert set(own) == unseen
        assert not set(anchors) & unseen
    assert sorted(data.captions) == sorted(points)
    # 20 points do not fix a rotation of 512 dimensions, but cosines and norms are kept whatever it is.
    rows = torch.stack([points[caption] for caption in data.captions])
    first = len(embedded[1])
    for part in (slice(0, first), slice(first, None)):
        torch.testing.assert_close(data.texts[part] @ data.texts[part].T, rows[part] @ rows[part].T, atol=2e-3, rtol=0)
    torch.testing.assert_close(data.frames[:, 0], data.texts)


def test_refuses_folds_that_are_missing_or_twice(tmp_path, folds):
    encoder = load_encoder()
    for wrong in (folds[:1], [folds[0], folds[0]], []):
        with pytest.raises(InputError, match="needs one encoder for each fold"):
            cross_fitted_pairs(tmp_path, ["msrvtt"], encoder, wrong)
    with pytest.raises(InputError, match="divides photographs, not emoji"):
        cross_fitted_pairs(tmp_path, ["emoji"], encoder, folds)
    with pytest.raises(InputError, match="names no fold that the encoder was trained without"):
        fold_of(BUNDLED_FOLDER)

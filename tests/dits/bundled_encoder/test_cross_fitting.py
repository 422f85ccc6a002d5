import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dits.bundled_encoder.cross_fitting import cross_fitted_pairs, fold_of, ordered_folds, orthogonal_map
from dits.bundled_encoder.data import in_fold, load_pairs
from dits.bundled_encoder.pair_embeddings import embed_pairs
from dits.bundled_encoder.training import train_encoder
from dits.common.errors import InputError
from dits.corpora.names import open_corpus
from dits.encoders.openclip import BUNDLED_FOLDER, load_encoder
from tests.dits.bundled_encoder.conftest import SMALL


def test_the_orthogonal_map_finds_a_rotation_and_keeps_cosines():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 8, generator=generator)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    torch.testing.assert_close(orthogonal_map(points, points @ rotation), rotation, atol=1e-5, rtol=1e-5)
    noisy = orthogonal_map(points, points @ rotation + torch.randn(50, 8, generator=generator))
    torch.testing.assert_close(noisy @ noisy.T, torch.eye(8), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stages", [0, 2])
def test_every_photograph_is_embedded_by_the_encoder_that_has_not_seen_it(
    tmp_path, tiny_corpus, shards, monkeypatch, stages
):
    """Cosines and norms are those of the fold's encoder, by its whole image tower; the map only turns its space."""
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    corpora = [open_corpus(str(tiny_corpus))]
    for fold in ("", "1/2", "2/2"):
        config = replace(SMALL, steps=0, image_stages=stages, fold=fold)
        train_encoder(corpora, shards, tmp_path / f"encoder{fold[:1]}", config, lambda line: None)
    encoder = load_encoder(f"local-dir:{tmp_path / 'encoder'}")
    folds = [tmp_path / "encoder2", tmp_path / "encoder1"]
    data = cross_fitted_pairs(shards, ["demo", "templates"], encoder, folds)
    pairs = load_pairs(shards, ["demo", "templates"])
    start = 0
    for number in (1, 2):
        unseen = [pair for pair in pairs if in_fold(pair, f"{number}/2")]
        plain = embed_pairs(unseen, load_encoder(f"local-dir:{tmp_path / f'encoder{number}'}"))
        rows = slice(start, start + len(plain.texts))
        assert data.captions[rows] == plain.captions
        own = data.frames[data.video_of[rows]]
        expected = plain.frames[plain.video_of]
        for a, b in ((data.texts[rows], plain.texts), (own[:, 0], expected[:, 0])):
            torch.testing.assert_close(a.norm(dim=-1), b.norm(dim=-1), atol=0, rtol=5e-3)
        cosines, wanted = (
            F.cosine_similarity(t[:, None], v, dim=-1) for t, v in ((data.texts[rows], own), (plain.texts, expected))
        )
        torch.testing.assert_close(cosines, wanted, atol=5e-3, rtol=0)
        start += len(plain.texts)
    assert start == len(data.texts) == sum(len(pair.texts) for pair in pairs)


@pytest.fixture
def folds(tmp_path):
    """Folders with the records of two encoders' trainings, each without a fold."""
    paths = []
    for number in (1, 2):
        folder = tmp_path / f"fold-{number}"
        folder.mkdir()
        (folder / "training.json").write_text(json.dumps({"config": {"fold": f"{number}/2"}}))
        paths.append(folder)
    return paths


def test_folds_are_ordered_and_refused_if_missing_or_twice(tmp_path, folds):
    assert ordered_folds(folds[::-1]) == {"1/2": folds[0], "2/2": folds[1]}
    for wrong in (folds[:1], [folds[0], folds[0]], []):
        with pytest.raises(InputError, match="needs one encoder for each fold"):
            ordered_folds(wrong)
    with pytest.raises(InputError, match="divides photographs, not emoji"):
        cross_fitted_pairs(tmp_path, ["emoji"], load_encoder(), folds)
    with pytest.raises(InputError, match="trained on all folds"):
        fold_of(BUNDLED_FOLDER)
    for record in ("{", "[]", '{"config": {"steps": -1}}', '{"config": {"unknown": 1}}', '{"config": 3}'):
        (folds[0] / "training.json").write_text(record)
        with pytest.raises(InputError, match="is no record of an encoder's training"):
            fold_of(folds[0])

"""The ablation grid: what it trains, what it keeps, and what its report says."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits.ablations.grid import Splits, embedded_splits, run_grid
from dits.ablations.report import About, write_report
from dits.ablations.tables import DITS, TABLES, XPOOL, Row, Table, Variant
from dits.cli.parser import main
from dits.common.errors import StorageError
from dits.corpora.embeddings import corpus_embeddings
from dits.corpora.names import open_corpus
from dits.encoders.openclip import load_encoder
from dits.evaluation.metrics import metrics_of, ranks_of
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import METHODS, ModelConfig
from dits.models.sampler import SamplerConfig
from dits.scoring.gallery import build_gallery
from dits.training.trainer import PairData, TrainingConfig, train
from tests.conftest import write_open_clip_folder

DIM = 16
BASE = ModelConfig(
    pooling=PoolingConfig(dim=DIM),
    sampler=SamplerConfig(),
    network=AlignmentConfig(dim=DIM, depth=1, heads=4, timestep_features=16),
)
TRAINING = TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-3, seed=99)


def pairs(videos, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(videos, DIM, generator=generator)
    video_of = np.repeat(np.arange(videos), 2)
    texts = centres[video_of] + 2 * F.normalize(torch.ones(DIM), dim=0)
    texts = texts + torch.randn(2 * videos, DIM, generator=generator)
    frames = centres[:, None] + 0.3 * torch.randn(videos, 12, DIM, generator=generator)
    return PairData(texts, frames, video_of, tuple(f"caption {number}" for number in range(2 * videos)))


SPLITS = Splits(pairs(12, 0), pairs(6, 1), pairs(9, 2), "these")


def grid(tmp_path, tables, seeds=(1, 2), report=lambda line: None):
    return run_grid(tables, SPLITS, BASE, TRAINING, seeds, tmp_path, report)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_the_paper_trains_end_to_end(name, tmp_path):
    results = grid(tmp_path, [TABLES[name]], seeds=(1,))
    assert results.failures == {}
    for row in TABLES[name].rows:
        (outcome,) = results.outcomes[row.variant.key]
        assert outcome.t2v_ranks.shape == (18,)
        assert outcome.v2t_ranks.shape == (9,)
        assert np.isfinite(outcome.t2v_ranks).all()


def test_the_paper_numbers_are_those_of_its_tables():
    """Spot checks against Tables 1, 4, 5 to 7, and the pairs of rows that the paper prints alike."""
    paper = {(name, row.label): row.paper for name, table in TABLES.items() for row in table.rows}
    assert [row.paper[0] for row in TABLES["steps"].rows] == [46.9, 49.2, 49.6, 51.9, 51.1, 47.0, 32.5, 0.2]
    assert [row.paper[0] for row in TABLES["condition"].rows] == [50.1, 42.3, 23.1, 40.9]
    assert paper["methods", "Fixed prior, variance 1.0"] == (28.0, 61.9, 74.7, 3.0, 19.7)
    assert paper["loss", "Diffusion, L1"] == (30.9, 59.5, 68.4, 4.0, 40.6)
    assert paper["direction", "from the video to the text (t - v)"] == paper["encoder", "DITS, encoder fixed"]
    assert {variant.method for table in TABLES.values() for variant in (r.variant for r in table.rows)} == set(METHODS)


def test_a_row_is_what_training_it_alone_gives(tmp_path):
    variant = Variant("dits", {"sampler.steps": 3, "sampler.noise_scale": 0.0})
    results = grid(tmp_path, [Table("one", "here", (Row("row", variant),))], seeds=(5,))
    config = ModelConfig("dits", BASE.pooling, SamplerConfig(steps=3, noise_scale=0.0, inference_seed=5), BASE.network)
    alone = train(
        config, TrainingConfig(epochs=2, batch_size=6, learning_rate=1e-3, seed=5), SPLITS.train, SPLITS.validation
    )
    scores = build_gallery(alone.model, SPLITS.test.frames).scores(SPLITS.test.texts).numpy()
    (outcome,) = results.outcomes[variant.key]
    assert outcome.validation == alone.best
    np.testing.assert_array_equal(outcome.t2v_ranks, ranks_of(scores, SPLITS.test.video_of))


def test_fine_tuning_starts_from_what_pretraining_gave(tmp_path):
    """With a rate of zero the second stage leaves the first as it is, pooling and diffusion network both."""
    still = {"learning_rate": 0.0, "clip_learning_rate": 0.0, "weight_decay": 0.0}
    first = Variant("diffusion", {}, {"objective": "l2"}, XPOOL)
    second = Variant("diffusion", {}, still, first)
    table = Table("stages", "here", (Row("pretrained", first), Row("then nothing", second)))
    results = grid(tmp_path, [table], seeds=(3,))
    ranks = [results.outcomes[variant.key][0].t2v_ranks for variant in (first, second)]
    np.testing.assert_array_equal(*ranks)


def test_an_interrupted_grid_goes_on_where_it_stopped(tmp_path):
    table = Table("two", "here", (Row("a", XPOOL), Row("b", DITS)))
    lines = []

    def stop_after_two(line):
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid(tmp_path, [table], report=stop_after_two)
    resumed = []
    results = grid(tmp_path, [table], report=resumed.append)
    assert len(resumed) == 2  # of four runs two were kept
    undisturbed = grid(tmp_path / "again", [table])
    for key, runs in undisturbed.outcomes.items():
        for a, b in zip(runs, results.outcomes[key], strict=True):
            np.testing.assert_array_equal(a.t2v_ranks, b.t2v_ranks)


@pytest.mark.parametrize("damage", [lambda text: "{}", lambda text: text[: len(text) // 2], lambda text: "[1, 2]"])
def test_a_damaged_result_is_named(tmp_path, damage):
    table = Table("one", "here", (Row("mean", Variant("mean")),))
    grid(tmp_path, [table], seeds=(1,))
    (file,) = (tmp_path / "runs").glob("*.json")
    file.write_text(damage(file.read_text()))
    with pytest.raises(StorageError, match=f"{file} is not a result of this grid"):
        grid(tmp_path, [table], seeds=(1,))


@pytest.mark.parametrize("suffix", [".safetensors", ".record.json"])
def test_a_damaged_start_is_named(tmp_path, suffix):
    """Truncated, as a full disk or a copy that stopped leaves it; removed, it is made again."""
    first = Variant("diffusion", {}, {"objective": "l2"}, XPOOL)
    tables = [Table("stages", "here", (Row("first", first), Row("second", Variant("diffusion", start=first))))]
    before = grid(tmp_path, tables, seeds=(1,))
    for result in (tmp_path / "runs").glob("diffusion-*-1.json"):
        result.unlink()
    (file,) = (tmp_path / "runs").glob(f"diffusion-*{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(StorageError, match=f"{file} is not a result of this grid: remove it"):
        grid(tmp_path, tables, seeds=(1,))
    file.unlink()
    after = grid(tmp_path, tables, seeds=(1,))
    for key, (outcome,) in before.outcomes.items():
        np.testing.assert_array_equal(outcome.t2v_ranks, after.outcomes[key][0].t2v_ranks)


def test_a_run_is_known_by_what_made_its_features_not_by_their_last_bits(tmp_path):
    """As another number of threads leaves them; other features of the same shape are measured anew."""
    table, trained = Table("one", "here", (Row("X-Pool", XPOOL),)), []
    run_grid([table], SPLITS, BASE, TRAINING, (1,), tmp_path, trained.append)
    texts = torch.nextafter(SPLITS.train.texts, torch.tensor(torch.inf))
    bits = replace(SPLITS, train=replace(SPLITS.train, texts=texts))
    run_grid([table], bits, BASE, TRAINING, (1,), tmp_path, trained.append)
    assert len(trained) == 1
    run_grid([table], replace(bits, key="others"), BASE, TRAINING, (1,), tmp_path, trained.append)
    assert len(trained) == 2


def test_whatever_makes_other_features_makes_another_key(tiny_corpus, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_corpus, tmp_path / "own")
    folder, other = tmp_path / "own", tmp_path / "other"
    write_open_clip_folder(other, seed=1)

    def key(encoder=tiny_encoder, measured="test"):
        corpus = open_corpus(str(folder))
        parts = [corpus.split(name) for name in ("train", "validation", measured)]
        return embedded_splits(parts, corpus, encoder, corpus_embeddings(corpus, encoder)).key

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        keys = [key()]
    finally:
        torch.set_num_threads(threads)
    assert key() == keys[0]
    keys += [key(measured="validation"), key(load_encoder(f"local-dir:{other}", device="cpu"))]
    captions = folder / "captions.csv"
    captions.write_text(captions.read_text().replace("a plain colour 3", "one plain colour 3"))
    keys.append(key())
    shutil.copyfile(folder / "clip1.mp4", folder / "clip0.mp4")
    keys.append(key())
    assert len(set(keys)) == 5


def test_a_variant_that_fails_does_not_end_the_grid(tmp_path):
    broken = Variant("dits", {}, {"learning_rate": float("inf")})
    table = Table("mixed", "here", (Row("X-Pool", XPOOL), Row("broken", broken)))
    results = grid(tmp_path, [table], seeds=(1,))
    assert XPOOL.key in results.outcomes
    assert "not finite" in results.failures[broken.key]
    about = About("demo", "test", "an encoder", "a command")
    text = write_report(tmp_path, [table], results, SPLITS, TRAINING, (1,), about).read_text()
    assert "| broken | failed: The loss is not finite" in text


def report_of(tmp_path, corpus):
    table = TABLES["methods"]
    results = grid(tmp_path, [table])
    path = write_report(
        tmp_path, [table], results, SPLITS, TRAINING, (1, 2), About(corpus, "test", "ViT-B-32/openai", "the command")
    )
    return results, path.read_text()


def test_the_report_has_mean_spread_and_interval_of_every_row(tmp_path):
    results, text = report_of(tmp_path, "demo")
    assert "`the command`" in text
    assert "paper: R@1" not in text  # the paper's data are others
    runs = results.outcomes[DITS.key]
    r1 = [metrics_of(run.t2v_ranks).r1 for run in runs]
    spread = abs(r1[0] - r1[1]) / 2**0.5
    row = next(line for line in text.splitlines() if line.startswith("| DITS |"))
    assert row.startswith(f"| DITS | {sum(r1) / 2:.1f} ± {spread:.1f} |")
    first = [metrics_of(run.t2v_ranks).r1 for run in results.outcomes[XPOOL.key]]
    assert f"{(sum(r1) - sum(first)) / 2:+.1f} [" in row
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * len(TABLES["methods"].rows)
    assert float(next(r for r in rows if r["row"] == "DITS" and r["seed"] == "2")["R@1"]) == pytest.approx(
        r1[1], abs=1e-3
    )
    assert (tmp_path / "figure.svg").read_text().count("<path") > 10


def test_on_msrvtt_the_papers_numbers_stand_beside_ours(tmp_path):
    _, text = report_of(tmp_path, "msrvtt:somewhere")
    row = next(line for line in text.splitlines() if line.startswith("| DITS |"))
    assert row.endswith("| 51.9 | 75.7 | 84.6 | 1.0 | 11.6 |")


def test_the_command_writes_a_report(tiny_corpus, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    command = ["ablate", "--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}", "--out", str(out)]
    command += [
        "--tables",
        "encoder",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--depth",
        "1",
        "--heads",
        "4",
    ]
    assert main(command) == 0
    assert "DITS, encoder fixed" in (out / "report.md").read_text()
    runs = [json.loads(path.read_text()) for path in (out / "runs").glob("*.json")]
    assert len(runs) == 2
    assert main([*command[:-8], "--tables", "magic"]) == 2
    assert main([*command, "--seeds", "1,1"]) == 2
    errors = capsys.readouterr().err
    assert "no table 'magic'" in errors
    assert "The seeds '1,1' contain a duplicate" in errors


def test_settings_of_inference_alone_take_the_weights_as_they_are(tmp_path):
    """No noise at inference, said again, is the model itself."""
    silent = Variant("dits", {"sampler.inference_samples": 7}, start=DITS, trained=False)
    table = Table("same", "here", (Row("a", DITS), Row("b", silent), Row("noisy", TABLES["controls"].rows[3].variant)))
    results = grid(tmp_path, [table], seeds=(1,))
    a, b, noisy = (results.outcomes[row.variant.key][0] for row in table.rows)
    np.testing.assert_array_equal(a.t2v_ranks, b.t2v_ranks)
    assert (a.t2v_ranks != noisy.t2v_ranks).any()

"""`train` on cached features, and what other commands need of a corpus: what is refused before anything is embedded."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open

from analysis.cli.parser import main as analyse
from dits.cli.parser import main
from dits.common.errors import InputError
from dits.encoders.openclip import load_encoder
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import METHODS, ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.trainer import TrainingConfig, train
from tests.dits.training.test_trainer import config as model_config
from tests.dits.training.test_trainer import pairs

QUICK = ["--epochs", "2", "--batch-size", "4", "--learning-rate", "0.01"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DITS_CACHE", str(folder))
    return folder


@pytest.fixture
def corpus_without(tiny_corpus, tmp_path):
    """Makes the tiny corpus with the clips of one split in another."""

    def make(split):
        folder = tmp_path / f"without-{split}"
        shutil.copytree(tiny_corpus, folder)
        text = (folder / "captions.csv").read_text()
        (folder / "captions.csv").write_text(text.replace(f",{split},", ",test," if split == "train" else ",train,"))
        return str(folder)

    return make


@pytest.fixture
def encoder(tiny_folder):
    return ["--encoder", f"local-dir:{tiny_folder}"]


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["dits"])


def refused(capsys, cache, code):
    """The one sentence of a command that was refused before anything was embedded."""
    output = capsys.readouterr()
    assert code == 2
    assert not list(cache.rglob("*.safetensors"))
    assert len(output.err.splitlines()) == 1
    assert output.out == ""
    return output.err


# --- The split that selects ---


def test_the_test_split_selects_where_it_is_asked_to(corpus_without, encoder, tmp_path, capsys):
    corpus, weights = corpus_without("validation"), tmp_path / "weights"
    command = ["train", "xpool", "--corpus", corpus, *encoder, *QUICK, "--out", str(weights / "xpool.safetensors")]
    assert main([*command, "--select-on", "test"]) == 0
    assert "  test t2v R@1 " in capsys.readouterr().err
    header = header_of(weights / "xpool.safetensors")
    assert header["data"]["selected_on"] == header["training"]["select_on"] == "test"
    measure = ["evaluate", "--corpus", corpus, *encoder, "--weights", str(weights), "--method", "xpool", "--json"]
    assert main(measure) == 0
    found = json.loads(capsys.readouterr().out)["methods"]["xpool"]
    for direction in ("t2v", "v2t"):
        assert found[direction].items() >= header["metric"][direction].items()


def test_validation_selects_by_default_and_test_only_instead_of_it(tiny_corpus, encoder, tmp_path):
    headers = {}
    for name, more in (
        ("default", []),
        ("validation", ["--select-on", "validation"]),
        ("test", ["--select-on", "test"]),
    ):
        out = tmp_path / f"{name}.safetensors"
        assert main(["train", "xpool", "--corpus", str(tiny_corpus), *encoder, *QUICK, *more, "--out", str(out)]) == 0
        headers[name] = header_of(out)
    assert headers["default"] == headers["validation"]
    assert headers["default"]["data"]["selected_on"] == "validation"
    assert headers["test"]["metric"] != headers["default"]["metric"]  # of other videos


def test_another_split_selects_nothing(tiny_corpus, encoder, cache, tmp_path, capsys):
    command = ["train", "xpool", "--corpus", str(tiny_corpus), *encoder, "--out", str(tmp_path / "x.safetensors")]
    assert "split to select on must be one of validation, test" in refused(
        capsys, cache, main([*command, "--select-on", "train"])
    )


def test_the_ablation_grid_selects_on_test_where_it_is_asked_to(corpus_without, encoder, tmp_path):
    out = tmp_path / "grid"
    command = ["ablate", "--corpus", corpus_without("validation"), *encoder, "--tables", "encoder", "--seeds", "1"]
    small = ["--epochs", "1", "--batch-size", "4", "--depth", "1", "--heads", "4"]
    assert main([*command, *small, "--select-on", "test", "--out", str(out)]) == 0
    report = " ".join((out / "report.md").read_text().split())
    assert "the epoch is chosen on 8 captions of 4 test videos" in report


# --- Refused before anything is embedded ---


def test_what_is_embedded_is_seen_in_the_cache(tiny_corpus, encoder, cache, capsys):
    """Or the tests below could not fail."""
    assert main(["evaluate", "--corpus", str(tiny_corpus), *encoder, "--method", "mean"]) == 0
    assert list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("split", "command"),
    [
        ("train", ["train", "xpool", "--out", "x.safetensors"]),
        ("validation", ["train", "xpool", "--out", "x.safetensors"]),
        ("test", ["train", "xpool", "--select-on", "test", "--out", "x.safetensors"]),
        ("test", ["evaluate"]),
        ("validation", ["evaluate", "--split", "validation"]),
        ("train", ["evaluate", "--post", "qbnorm"]),
        ("train", ["ablate", "--out", "grid"]),
        ("validation", ["ablate", "--out", "grid"]),
        ("test", ["ablate", "--out", "grid"]),
        ("train", ["prepare"]),
        ("validation", ["prepare"]),
    ],
)
def test_a_missing_split_is_said_first(split, command, corpus_without, encoder, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    error = refused(capsys, cache, main([*command, "--corpus", corpus_without(split), *encoder]))
    assert f"{split} split" in error


def test_training_the_encoder_says_a_missing_split_first(corpus_without, cache, tmp_path, capsys):
    command = ["train", "encoder", "--pairs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    error = refused(capsys, cache, main([*command, "--corpus", corpus_without("validation")]))
    assert "The validation split of corpus" in error


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_analysis_says_a_missing_split_first(split, corpus_without, encoder, cache, capsys):
    error = refused(capsys, cache, analyse(["encoder", "--corpus", corpus_without(split), *encoder]))
    assert f"{split} split" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mean"], "The method mean has no weights to train"),
        (["prior", "--kind", "mean"], "The method prior has no weights to train"),
        (["dits", "--kind", "mean", "--steps", "0"], "The method dits has no weights to train"),
        (["xpool", "--objective", "l2"], "nothing that the objective l2 could train"),
        (["xpool", "--epochs", "0"], "at least 1 epoch"),
        (["xpool", "--dropout", "2"], "dropout must be from 0"),
        (["xpool", "--epoch-captions", "31"], "holds no batch of 32"),
        (["xpool", "--device", "tpu"], "no device 'tpu'"),
        (["mean", "--projection-rate", "1e-3"], "--projection-rate: only tuned projections use this"),
        (["mean", "--joint", "--feature-dropout", "0.1"], "--feature-dropout: only tuned projections use this"),
        (["mean", "--joint", "--tune-projections", "encoder"], "--tune-projections is for training on cached"),
        (["xpool", "--init", "nowhere.safetensors"], "no file nowhere.safetensors"),
        (["xpool", "--pairs", "nowhere"], "nowhere"),
        (["xpool", "--sources", "emoji"], "--sources needs --pairs"),
    ],
)
def test_what_cannot_be_trained_is_said_first(arguments, says, tiny_corpus, encoder, cache, tmp_path, capsys):
    command = ["train", *arguments, "--corpus", str(tiny_corpus), *encoder, "--out", str(tmp_path / "x.safetensors")]
    assert says in refused(capsys, cache, main(command))


def test_training_on_embeddings_needs_more_than_a_temperature():
    """What the command refuses, the library does too; the mean shift is fitted, not trained."""
    quick = TrainingConfig(epochs=1, batch_size=8)
    pooled = {"xpool": InputError, "mean": InputError, "shift": None, "dits": None, "mlp": None}
    for method, error in pooled.items():
        config = replace(model_config(method), pooling=PoolingConfig(kind="mean", dim=32))
        if error:
            with pytest.raises(error, match="has no weights to train"):
                train(config, quick, pairs(), pairs(seed=1))
        else:
            assert train(config, quick, pairs(), pairs(seed=1)).history


# --- The encoder's projections ---


@pytest.mark.parametrize(("method", "half"), [("xpool", []), ("mean", ["--half"])])
def test_tuned_projections_are_written_as_an_encoder_of_the_weights(
    method, half, tiny_corpus, tiny_encoder, encoder, tmp_path, capsys
):
    folder, tuned = tmp_path / "weights", tmp_path / "tuned"
    command = ["train", method, "--corpus", str(tiny_corpus), *encoder, *QUICK, "--tune-projections", str(tuned), *half]
    options = ["--temperature", "0", "--projection-rate", "0.01", "--out", str(folder / f"{method}.safetensors")]
    assert main([*command, *options]) == 0
    assert f"--encoder local-dir:{tuned}" in capsys.readouterr().out
    header = header_of(folder / f"{method}.safetensors")
    assert header["encoder"] == load_encoder(f"local-dir:{tuned}").id != tiny_encoder.id
    assert header["training"]["start"] == tiny_encoder.id
    assert header["training"]["temperature"] == pytest.approx(1 / 0.07)  # of an untrained OpenCLIP model
    measure = ["evaluate", "--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tuned}", "--split", "validation"]
    assert main([*measure, "--weights", str(folder), "--method", method, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"][method]
    for direction in ("t2v", "v2t"):
        assert found[direction].items() >= header["metric"][direction].items()


# --- Flags that a method does not read ---


@pytest.mark.parametrize("joint", [[], ["--joint"]])
@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("mean", ["--dropout", "0.1"]),
        ("mean", ["--kind", "xpool"]),
        ("mean", ["--attend-with", "text"]),
        ("xpool", ["--kind", "mean"]),
        ("xpool", ["--attend-with", "aligned"]),
        ("tmass", ["--attend-with", "aligned"]),
    ],
)
def test_pooling_flags_without_a_reader_are_not_offered(method, flags, joint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", method, *joint, *flags, "--out", "out"])
    assert stop.value.code == 2
    assert f"unrecognized arguments: {' '.join(flags)}" in capsys.readouterr().err


@pytest.mark.parametrize("joint", [[], ["--joint"]])
def test_flags_that_mean_pooling_does_not_read_are_refused(joint, tiny_corpus, encoder, cache, tmp_path, capsys):
    base = [
        "train",
        "dits",
        *joint,
        "--corpus",
        str(tiny_corpus),
        *encoder,
        "--out",
        str(tmp_path / "out"),
        "--heads=4",
    ]
    for given in (["--dropout", "0.0"], ["--attend-with", "text", "--dropout", "0.1"]):
        error = refused(capsys, cache, main([*base, "--kind", "mean", *given]))
        assert f"{' and '.join(given[::2])}: mean pooling does not use this" in error


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("field", "value"), [("kind", "mean"), ("attend_with", "aligned"), ("dropout", 0.9)])
def test_a_pooling_flag_is_offered_where_it_changes_the_model(method, field, value):
    """Loss and scores of the same weights and draws, with the field at its default and at another value."""
    generator = torch.Generator().manual_seed(0)
    texts, frames = torch.randn(6, 32, generator=generator), torch.randn(6, 12, 32, generator=generator)

    def outputs(pooling):
        torch.manual_seed(1)
        network = AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False)
        model = RetrievalModel(ModelConfig(method, pooling, network=network))
        if method == "shift":
            model.alignment.fit(texts, frames.mean(dim=1))
        torch.manual_seed(2)
        loss = model.train().loss(texts, frames).detach()
        return torch.cat([loss[None], build_gallery(model.eval(), frames).scores(texts).flatten()])

    default = PoolingConfig(dim=32)
    offered = field in METHODS[method].pooling
    try:
        changed = not torch.allclose(outputs(default), outputs(replace(default, **{field: value})), atol=1e-5)
    except InputError:  # T-MASS has no aligned text to attend with
        changed = False
    contradiction = (method, field) == ("xpool", "kind")  # X-Pool by mean pooling is the method mean
    assert offered == (changed and not contradiction)
    assert set(METHODS[method].pooling) <= asdict(default).keys()


def test_missing_weights_are_named_before_anything_is_embedded(tiny_corpus, encoder, cache, tmp_path, capsys):
    command = ["evaluate", "--corpus", str(tiny_corpus), *encoder, "--method", "mean,dits"]
    assert "no weights of the method 'dits' for the encoder" in refused(capsys, cache, main(command))
    named = refused(capsys, cache, main([*command, "--weights", str(tmp_path)]))
    assert f"The weights are missing: there is no file {tmp_path / 'dits.safetensors'}" in named

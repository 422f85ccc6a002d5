"""Every method on the files of a benchmark, by command: training, evaluation, and joint training from video."""

import json

import pytest

from dits.cli.parser import main
from dits.models.retrieval import METHODS
from tests.fixtures.make_datasets import make_datasets

TRAINED = [name for name in METHODS if name != "mean"]
QUICK = ["--epochs", "1", "--batch-size", "6"]
NETWORK = ["--depth", "1", "--heads", "4"]


@pytest.fixture(scope="session")
def datasets(demo, tmp_path_factory):
    return make_datasets(tmp_path_factory.mktemp("datasets"), demo)


@pytest.fixture
def sources(datasets, tiny_folder, tmp_path_factory, monkeypatch):
    """Flags for the MSR-VTT fixture and a small encoder; embedded once for all tests."""
    cache = tmp_path_factory.getbasetemp() / "methods-cache"
    monkeypatch.setenv("DITS_CACHE", str(cache))
    return ["--corpus", f"msrvtt:{datasets['msrvtt']}", "--encoder", f"local-dir:{tiny_folder}"]


def options(method):
    return NETWORK if "network" in METHODS[method].parts else []


@pytest.mark.parametrize("method", TRAINED)
def test_a_method_trains_on_cached_features_and_evaluates(method, sources, tmp_path, capsys):
    weights = tmp_path / f"{method}.safetensors"
    assert main(["train", method, *sources, *QUICK, *options(method), "--out", str(weights)]) == 0
    capsys.readouterr()
    assert main(["evaluate", *sources, "--method", method, "--weights", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    metrics = report["methods"][method]["t2v"]
    assert 1 <= metrics["MnR"] <= report["videos"]
    assert metrics["R@50"] == 100  # there are fewer videos than that


@pytest.mark.parametrize(("name", "root"), [("msrvtt-all", "msrvtt"), ("charades-all", "charades")])
def test_a_benchmark_without_a_validation_split_trains_when_test_selects(
    name, root, datasets, sources, tmp_path, capsys
):
    out = tmp_path / "x.safetensors"
    command = ["train", "xpool", "--corpus", f"{name}:{datasets[root]}", *sources[2:], *QUICK, "--out", str(out)]
    assert main(command) == 2
    assert "The validation split of corpus" in capsys.readouterr().err
    assert main([*command, "--select-on", "test"]) == 0
    assert out.is_file()


def test_diffusion_is_pretrained_then_fine_tuned(sources, tmp_path):
    """The two stages of section 3.2, one command each."""
    xpool, first, second = (tmp_path / f"{name}.safetensors" for name in ("xpool", "first", "second"))
    assert main(["train", "xpool", *sources, *QUICK, "--out", str(xpool)]) == 0
    stage = ["train", "diffusion", *sources, *QUICK, *NETWORK]
    assert main([*stage, "--objective", "l2", "--init", str(xpool), "--out", str(first)]) == 0
    assert main([*stage, "--init", str(first), "--out", str(second)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "shift"])
def test_a_method_trains_from_video(method, sources, tmp_path, capsys):
    out = tmp_path / "joint"
    command = ["train", method, *sources, *QUICK, *options(method), "--joint", "--workers", "0", "--max-steps", "2"]
    assert main([*command, "--out", str(out)]) == 0
    corpus = sources[:2]
    trained = [*corpus, "--encoder", f"local-dir:{out / 'encoder'}", "--weights", str(out)]
    capsys.readouterr()
    assert main(["evaluate", *trained, "--method", method, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["methods"][method]["t2v"]["R@50"] == 100


def test_the_mean_shift_is_no_training_from_video(sources, tmp_path, capsys):
    assert main(["train", "shift", *sources, "--joint", "--out", str(tmp_path / "x")]) == 2
    assert "computed, not trained" in capsys.readouterr().err

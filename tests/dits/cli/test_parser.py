import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from dits.cli.parser import main
from dits.evaluation.metrics import METRIC_NAMES


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sources(tiny_corpus, tiny_folder):
    return ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}"]


TINY_RUN = ["--epochs", "1", "--batch-size", "4"]
TINY_SAMPLER = ["--steps", "2", "--depth", "1", "--heads", "4"]


@pytest.fixture
def weights(cache, sources, tmp_path):
    folder = tmp_path / "weights"
    for method, extra in (("xpool", []), ("dits", TINY_SAMPLER)):
        assert main(["train", method, *sources, *TINY_RUN, *extra, "--out", str(folder / f"{method}.safetensors")]) == 0
    return ["--weights", str(folder)]


def run_json(capsys, *arguments):
    assert main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def test_train_evaluate_and_search_a_folder_of_videos(weights, sources, tmp_path, capsys):
    capsys.readouterr()
    report = run_json(capsys, "evaluate", *sources, *weights, "--json")
    assert (report["videos"], report["queries"], report["skipped"]) == (4, 8, 0)
    assert set(report["methods"]) == {"mean", "xpool", "dits"}
    assert set(report["methods"]["dits"]["v2t"]) == set(METRIC_NAMES)
    found = run_json(capsys, "search", "a plain colour 3", *sources, *weights, "--top", "3", "--json")
    assert {"query", "encoder", "method", "results"} <= set(found)
    assert [result["rank"] for result in found["results"]] == [1, 2, 3]
    first = found["results"][0]
    assert os.path.isfile(first["path"])
    assert len(first["frames"]) == 12
    assert set(first["frames"][0]) == {"time", "weight"}


def test_training_flags_reach_the_checkpoint(weights, tmp_path):
    with safe_open(tmp_path / "weights" / "dits.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["dits"])
    assert header["config"]["sampler"]["steps"] == 2
    assert header["config"]["pooling"]["heads"] == 1  # --heads is the network's
    assert header["config"]["network"] | {"depth": 1, "heads": 4, "dim": 32} == header["config"]["network"]
    assert header["training"]["batch_size"] == 4
    assert header["data"]["selected_on"] == "validation"


def test_dits_can_start_from_xpool(weights, sources, tmp_path):
    xpool, out = tmp_path / "weights" / "xpool.safetensors", tmp_path / "d.safetensors"
    frozen = ["--learning-rate", "0", "--clip-learning-rate", "0"]
    arguments = ["--init", str(xpool), "--out", str(out), *TINY_RUN, *TINY_SAMPLER, *frozen]
    assert main(["train", "dits", *sources, *arguments]) == 0
    with safe_open(xpool, framework="pt") as a, safe_open(out, framework="pt") as b:
        for name in a.keys():  # noqa: SIM118 - not a mapping
            assert torch.equal(a.get_tensor(name), b.get_tensor(name))


def test_queries_from_a_file_are_ranked_against_a_split(cache, sources, tmp_path, capsys):
    path = tmp_path / "queries.csv"
    path.write_text("video_id,caption\nclip2,some colour\nclip0,not in the test split\nnowhere,nothing\n")
    base = ["evaluate", *sources, "--method", "mean", "--queries", str(path), "--json"]
    report = run_json(capsys, *base)
    assert (report["videos"], report["queries"], report["skipped"]) == (4, 1, 2)
    report = run_json(capsys, *base, "--split", "all")
    assert (report["videos"], report["queries"], report["skipped"]) == (12, 2, 1)


def test_several_sets_of_weights_give_mean_and_spread(weights, sources, tmp_path, capsys):
    other = tmp_path / "other"
    extra = ["--learning-rate", "0.01", "--seed", "5", "--out", str(other / "xpool.safetensors")]
    assert main(["train", "xpool", *sources, *TINY_RUN, *extra]) == 0
    folders = [weights[1], str(other)]
    capsys.readouterr()
    base = ["evaluate", *sources, "--method", "xpool", "--json"]
    single = [run_json(capsys, *base, "--weights", folder)["methods"]["xpool"]["t2v"]["MnR"] for folder in folders]
    both = run_json(capsys, *base, "--weights", folders[0], "--weights", folders[1])
    assert both["runs"] == 2
    assert both["methods"]["xpool"]["t2v"]["MnR"] == pytest.approx(sum(single) / 2)
    assert both["spread"]["xpool"]["t2v"]["MnR"] == pytest.approx(abs(single[0] - single[1]) / 2**0.5)


def test_evaluation_prints_a_table(cache, sources, capsys):
    assert main(["evaluate", *sources, "--method", "mean"]) == 0
    assert "| mean | t2v |" in capsys.readouterr().out


def test_encode_writes_where_it_is_told(cache, sources, tmp_path, capsys):
    out = tmp_path / "e.safetensors"
    assert main(["encode", *sources, "--out", str(out)]) == 0
    with safe_open(out, framework="pt") as file:
        assert file.get_slice("frames").get_shape() == [12, 12, 32]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", ""], "query is empty"),
        (["search", "x", "--top", "0"], "from 1 to 100"),
        (["search", "x", "--corpus", "/nowhere"], "no corpus '/nowhere'"),
        (["search", "x", "--encoder", "nonsense"], "no encoder 'nonsense'"),
        (["search", "x", "--weights", "/nowhere"], "weights are missing"),
        (["evaluate", "--split", "dev"], "no split 'dev'"),
        (["evaluate", "--method", "magic"], "no method 'magic'"),
        (["evaluate", "--queries", "/nowhere.csv"], "no such file"),
        (["train", "xpool", "--out", "x.safetensors", "--epochs", "0"], "at least 1 epoch"),
        (["train", "xpool", "--out", "x.safetensors", "--seed", "-1"], "seed must be from 0"),
        (["train", "xpool", "--out", "x.safetensors", "--learning-rate", "-1"], "cannot be negative"),
        (["train", "xpool", "--out", "x.safetensors", "--dropout", "2"], "dropout must be from 0"),
        (["train", "dits", "--out", "x.safetensors", "--heads", "0"], "0 attention heads"),
        (["train", "dits", "--out", "x.safetensors", "--steps", "-1"], "0 or more"),
        (["train", "dits", "--out", "x.safetensors", "--timestep-features", "3"], "timestep features must be even"),
        (["train", "dits", "--out", "."], "is a folder: name a file"),
        (["demo", "--workers", "0"], "1 or more"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(sources, cache, capsys, arguments, says):
    if arguments[0] in ("search", "evaluate", "train"):
        own = {name for name in ("--corpus", "--encoder") if name in arguments}
        for name, value in (sources[:2], sources[2:]):
            if name not in own:
                arguments = [*arguments, name, value]
    if arguments[:2] == ["search", ""] or "--top" in arguments:
        arguments = [*arguments, "--method", "mean"]
    assert main(arguments) == 2
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not line.startswith("Embedding")]
    assert len(lines) == 1
    assert says in lines[0]
    assert output.out == ""


def test_weights_of_another_encoder_are_refused(weights, tiny_corpus, tmp_path, capsys):
    from tests.conftest import write_open_clip_folder

    write_open_clip_folder(tmp_path / "other", seed=9)
    other = ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tmp_path / 'other'}"]
    assert main(["search", "x", *other, *weights]) == 2
    assert "trained for the encoder tiny-" in capsys.readouterr().err


def test_runs_as_a_module_and_explains_itself():
    done = subprocess.run([sys.executable, "-m", "dits", "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "search", "evaluate", "encode", "train"):
        assert command in done.stdout


def test_every_training_flag_is_documented(capsys):
    with pytest.raises(SystemExit):
        main(["train", "dits", "--help"])
    text = capsys.readouterr().out
    assert "--noise-scale" in text
    assert "share of the steps with a linear warm-up" in " ".join(text.split())

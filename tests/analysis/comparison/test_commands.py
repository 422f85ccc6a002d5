"""Both commands, from flags to reports."""

import csv
import json

import pytest

from analysis.cli.parser import main
from analysis.comparison.methods import ENTRIES, REFERENCES
from analysis.measures.gap import MEASURES

TINY_BUDGET = ["--epochs", "1", "--epoch-captions", "8", "--batch-size", "4", "--heads", "4", "--jobs", "1"]


@pytest.fixture
def sources(tiny_corpus, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))
    return ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}", "--resamples", "20"]


def everything_in(folder):
    """The text of all files of a folder but its runs."""
    return "".join(path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".csv", ".json", ".svg"))


def test_compare_writes_a_report_without_captions_and_ids(sources, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["compare", *sources, *TINY_BUDGET, "--out", str(out), "--seeds", "1,2", "--methods", "dits"]
    assert main(command) == 0
    page = (out / "README.md").read_text()
    assert "| DITS ranks better than X-Pool | Table 1 | 51.9 and 46.9 |" in page
    assert "Training: 8 captions of 4 videos." in page
    summary = json.loads((out / "summary.json").read_text())
    assert summary["results"]["joint"]["dits"]["gap"].keys() == MEASURES.keys()
    assert summary["splits"]["all"] == {"captions": 8, "videos": 4}
    with (out / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    methods = [*REFERENCES, "dits"]
    assert len(rows) == 2 * len(methods) * 2 * 2 * 2  # modes, methods, query sets, directions, seeds
    assert {row["method"] for row in rows} == set(methods)
    written = everything_in(out)
    assert "plain colour" not in written
    assert "clip1" not in written
    assert str(tmp_path) not in written
    capsys.readouterr()
    assert main(command) == 0  # all results are there
    assert "runs to compute" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "magic"], "There is no method 'magic' to compare"),
        (["--modes", "frozen,both"], "There is no mode 'both'"),
        (["--seeds", "1,1"], "contain a duplicate"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--epochs", "0"], "at least 1 epoch"),
    ],
)
def test_compare_refuses_what_it_cannot_do(flags, message, sources, tmp_path, capsys):
    assert main(["compare", *sources, "--out", str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["", "0", "1,1", "x", "inf", "-1"])
def test_frontier_refuses_weights_that_are_no_sweep(weights, sources, tmp_path, capsys):
    assert main(["frontier", *sources, "--out", str(tmp_path), f"--alignment-weights={weights}"]) == 2
    assert "The alignment weights" in capsys.readouterr().err


def test_frontier_writes_figure_table_and_choice(sources, tmp_path):
    out = tmp_path / "out"
    sweeps = ["--alignment-weights", "1", "--noise-scales", "0.5", "--seeds", "1"]
    assert main(["frontier", *sources, *TINY_BUDGET, *sweeps, "--joint", "--out", str(out)]) == 0
    with (out / "frontier.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = ["dits-weight-0", "dits-weight-1", "dits-noise-0.5", "mean", "xpool"]
    assert [row["setting"] for row in rows] == names
    (best,) = [row for row in rows if row["chosen"] == "1"]
    assert best["candidate"] == "1"
    candidates = [float(row["closed"]) for row in rows if row["candidate"] == "1"]
    assert float(best["closed"]) == max(candidates)
    title = {"dits-weight-0": "alignment weight 0", "dits-weight-1": "alignment weight 1"}.get(best["setting"], "noise")
    assert f"**DITS, {title}" in (out / "README.md").read_text()
    assert (out / "frontier.svg").read_text().count("<path") > 10
    assert "plotly" in (out / "frontier.html").read_text()


@pytest.mark.slow
def test_both_commands_on_the_demo_corpus(demo, tmp_path, monkeypatch):
    """All methods, in both modes, in two processes, with the bundled encoder."""
    budget = ["--epochs", "1", "--epoch-captions", "64", "--batch-size", "32", "--jobs", "2", "--resamples", "50"]
    assert main(["compare", *budget, "--seeds", "1", "--out", str(tmp_path / "compare")]) == 0
    summary = json.loads((tmp_path / "compare" / "summary.json").read_text())
    assert [list(methods) for methods in summary["results"].values()] == [list(ENTRIES)] * 2
    assert summary["failures"] == []
    assert summary["splits"]["all"] == {"captions": 320, "videos": 64}
    assert main(["frontier", *budget, "--seeds", "1", "--out", str(tmp_path / "frontier")]) == 0
    assert len((tmp_path / "frontier" / "frontier.csv").read_text().splitlines()) == 1 + 13

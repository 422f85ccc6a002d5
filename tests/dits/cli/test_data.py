"""`data check`, and benchmarks named as NAME:FOLDER in the other commands, on real files."""

import csv
import json

import pytest

from dits.cli.parser import main
from dits.corpora.datasets import DATASETS
from dits.corpora.names import open_corpus
from tests.fixtures.make_datasets import make_datasets
from tests.helpers.videos import cut, write_sound
from ui.services.media import CorpusSegments


@pytest.fixture
def datasets(demo, tmp_path):
    return make_datasets(tmp_path / "datasets", demo)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


def check(capsys, *arguments):
    """The exit code and the report of `data check ... --json`."""
    code = main(["data", "check", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_counts_what_is_there_and_what_is_not(datasets, capsys, tmp_path):
    out = tmp_path / "problems.csv"
    code, report = check(capsys, "msrvtt", "--root", datasets["msrvtt"], "--out", out)
    assert (code, report["complete"]) == (1, False)
    assert report["splits"]["train"] == {
        "videos": 7, "usual": 8503, "missing": 1, "undecodable": None, "captions": 140, "fewest": 20, "most": 20,
        "repeated": 20,
    }  # fmt: skip
    assert (
        report["splits"]["test"] | {"videos": 6, "captions": 7, "fewest": 1, "most": 2, "repeated": 1}
        == (report["splits"]["test"])
    )
    assert report["missing"] == {"train": ["video15"], "test": ["video14"]}
    assert report["unused"] == 1
    assert list(csv.reader(out.open())) == [
        ["split", "video", "problem", "reason"],
        ["train", "video15", "missing", ""],
        ["test", "video14", "missing", ""],
    ]


def test_a_complete_dataset_exits_with_0(datasets, capsys):
    for split in ("trn", "val", "tst"):
        assert (datasets["vatex"] / f"{split}_names.npy").is_file()
    missing = datasets["vatex"] / "Zu8ZPFPd1hI_000000_000010.mp4"
    missing.symlink_to(next(datasets["vatex"].glob("G9z*.mp4")))
    code, report = check(capsys, "vatex", "--root", datasets["vatex"], "--decode", "--workers", "2")
    assert (code, report["complete"], report["undecodable"]) == (0, True, {})
    assert main(["data", "check", "vatex", "--root", str(datasets["vatex"])]) == 0
    table = capsys.readouterr().out
    assert "| test | 1500 | 2 | 2 | 0 | not tried | 20 | 10 | 0 |" in table
    assert table.rstrip().endswith("\nComplete.")


def test_files_that_do_not_decode_are_named_with_the_reason(datasets, capsys, tmp_path):
    folder = datasets["own"].parent
    for name, spoil in (
        ("cat.mp4", lambda path, source: path.write_bytes(b"no video at all")),
        ("dog.mp4", lambda path, source: cut(source, path, 0.2)),
        ("party.mp4", lambda path, source: write_sound(path)),
    ):
        source = (folder / name).resolve()
        (folder / name).unlink()
        spoil(folder / name, source)
    out = tmp_path / "problems.csv"
    code, report = check(capsys, datasets["own"], "--decode", "--workers", "2", "--out", out)
    assert code == 1
    assert list(report["undecodable"]) == ["party.mp4#t=0,0.5", "party.mp4#t=0.5,", "dog.mp4", "cat.mp4"]
    assert all(reason.endswith(".") and "Traceback" not in reason for reason in report["undecodable"].values())
    assert report["splits"]["validation"]["undecodable"] == 2
    assert [row["problem"] for row in csv.DictReader(out.open())] == ["missing", *["undecodable"] * 4]


def test_parts_past_the_end_are_found(datasets, capsys):
    with datasets["own"].open("a") as stream:
        stream.write("test,too late,cat.mp4,5000,,\n")
    _, report = check(capsys, datasets["own"], "--decode", "--workers", "1")
    assert list(report["undecodable"]) == ["cat.mp4#t=5000,"]
    assert "past the end" in report["undecodable"]["cat.mp4#t=5000,"]


def test_missing_annotations_exit_with_1_and_say_how_to_obtain_them(tmp_path, capsys):
    assert main(["data", "check", "lsmdc", "--root", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "There is no LSMDC16_annos_training.csv" in output
    assert "Max Planck" in output
    code, report = check(capsys, "lsmdc", "--root", tmp_path)
    assert (code, report["complete"]) == (1, False)


def test_a_folder_without_any_video_is_reported_not_refused(datasets, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, report = check(capsys, "vatex", "--root", tmp_path / "empty", "--annotations", datasets["vatex"], "--decode")
    assert code == 1
    assert {name: split["missing"] for name, split in report["splits"].items()} == {
        "train": 3, "validation": 1, "test": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["imagenet", "--root", "."], "no dataset 'imagenet'"),
        (["msrvtt"], "Give the folder of the videos"),
        (["msrvtt", "--root", "/nowhere"], "no folder /nowhere"),
        (["lost.csv"], "Cannot read lost.csv"),
        (["own.csv", "--annotations", "."], "leave --annotations out"),
        (["msrvtt", "--root", ".", "--workers", "0"], "1 or more"),
        (["msrvtt", "--root", ".", "--seconds", "0"], "1 or more"),
        (["msrvtt", "--root", ".", "--out", "."], "is a folder"),
    ],
)
def test_bad_input_exits_with_2(capsys, arguments, says):
    assert main(["data", "check", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_every_dataset_is_listed(capsys):
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(DATASETS)]] == list(DATASETS)
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["name"]: sum(row["videos"].values()) for row in listed}["msrvtt"] == 10_000


# --- Benchmarks in the other commands ---


@pytest.fixture
def sources(cache, datasets, tiny_folder):
    return ["--corpus", f"msrvtt:{datasets['msrvtt']}", "--encoder", f"local-dir:{tiny_folder}"]


def test_a_benchmark_is_embedded_trained_on_searched_and_evaluated(sources, tmp_path, capsys):
    assert main(["encode", *sources]) == 0
    output = capsys.readouterr()
    assert "Embedded 12 videos" in output.out
    assert "1 of 7 train videos, the first is video15" in output.err
    weights = tmp_path / "weights"
    training = ["--epochs", "1", "--batch-size", "4", "--out", str(weights / "xpool.safetensors")]
    assert main(["train", "xpool", *sources, *training]) == 0
    capsys.readouterr()
    evaluation = ["--method", "mean,xpool", "--weights", str(weights), "--json"]
    assert main(["evaluate", *sources, *evaluation]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["videos"], report["queries"]) == (5, 6)
    assert set(report["methods"]) == {"mean", "xpool"}
    assert main(["search", "a man", *sources, "--method", "mean", "--top", "2", "--json"]) == 0
    assert {result["id"][:5] for result in json.loads(capsys.readouterr().out)["results"]} == {"video"}


@pytest.mark.parametrize("command", [["encode"], ["evaluate", "--method", "mean"], ["search", "x", "--method", "mean"]])
def test_strict_refuses_what_is_not_complete(sources, capsys, command):
    assert main([*command, *sources, "--strict"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "not complete" in lines[0]


def test_parts_and_own_videos_are_evaluated(cache, datasets, tiny_folder, capsys):
    encoder = ["--encoder", f"local-dir:{tiny_folder}", "--method", "mean", "--json"]
    assert main(["evaluate", "--corpus", str(datasets["own"]), "--split", "all", *encoder]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["videos"], report["queries"]) == (6, 7)
    assert main(["evaluate", "--corpus", f"didemo:{datasets['didemo-csv']}", *encoder]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 2


def test_the_page_serves_the_clips_of_a_benchmark(sources, datasets, tiny_folder):
    corpus = open_corpus(f"msrvtt:{datasets['msrvtt']}")
    served = CorpusSegments(corpus)
    assert len(corpus) == 12
    assert all(served.file(clip.id) == clip.path for clip in corpus)
    assert served.file(str(corpus.clips[0].path)) is served.file("") is served.thumbnail("../video0") is None

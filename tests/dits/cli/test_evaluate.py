"""`evaluate`: what it adds to the metrics, on a folder of small videos."""

import csv
import json

import numpy as np
import pytest
import torch.nn.functional as F
from safetensors.torch import load_file

from dits.cli.parser import main
from dits.corpora.corpus import Corpus, read_clips
from dits.corpora.embeddings import embed_corpus
from dits.evaluation.metrics import METRIC_NAMES, match_queries, metrics_of, ranks_of, video_to_text_ranks
from dits.models.pooling import mean_pool
from dits.scoring.postprocessing import query_bank, querybank_norm


@pytest.fixture(scope="module")
def base(tiny_corpus, tiny_folder, tmp_path_factory):
    """The command with a corpus, an encoder and trained weights."""
    folder = tmp_path_factory.mktemp("evaluate")
    sources = ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}"]
    sampler = ["--steps", "2", "--depth", "1", "--heads", "4", "--noise-scale", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITS_CACHE", str(folder / "cache"))
        for method, extra in (("xpool", []), ("dits", sampler)):
            run = ["--epochs", "3", "--batch-size", "4", "--learning-rate", "0.01"]
            out = ["--out", str(folder / "weights" / f"{method}.safetensors")]
            assert main(["train", method, *sources, *run, *extra, *out]) == 0
        yield ["evaluate", *sources, "--weights", str(folder / "weights")]


@pytest.fixture
def report(base, capsys):
    """Runs the command with some more flags and reads its JSON."""

    def run(*flags):
        assert main([*base, *flags, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def read_ranks(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_json_carries_everything(report):
    found = report("--split", "all", "--compare", "dits,xpool", "--leak", "--resamples", "200", "--seed", "3")
    assert found["n"] == {"t2v": 24, "v2t": 12}
    assert (found["repeated_captions"]["repeated"], found["post"]) == (0, None)
    assert found["bootstrap"] == {"resamples": 200, "confidence": 95.0, "draw": "videos", "seed": 3}
    assert list(found["methods"]) == ["dits", "xpool"]
    for method, both in found["methods"].items():
        for direction, metrics in both.items():
            for name in METRIC_NAMES:
                low, high = found["intervals"][method][direction][name]
                assert low <= metrics[name] <= high
    assert found["comparison"]["methods"] == ["dits", "xpool"]
    difference = found["comparison"]["t2v"]["differences"]["R@1"]["value"]
    r1 = {method: both["t2v"]["R@1"] for method, both in found["methods"].items()}
    assert difference == pytest.approx(r1["dits"] - r1["xpool"])
    assert (found["leak"]["queries"], found["leak"]["left_out"]) == (12, 12)


def test_the_leak_is_measured_on_the_first_captions(report, base, tiny_corpus, tmp_path):
    """Its proper half is what the command itself finds for those captions."""
    leak = report("--method", "xpool,mean", "--leak")["leak"]
    clips = [clip for clip in read_clips(tiny_corpus / "captions.csv", tiny_corpus) if clip.split == "test"]
    rows = [f"{clip.id},{clip.captions[0]}" for clip in clips]
    (tmp_path / "first.csv").write_text("\n".join(["video_id,caption", *rows]))
    plain = report("--method", "xpool", "--queries", str(tmp_path / "first.csv"))["methods"]["xpool"]
    found = leak["methods"]["xpool"]
    assert found["proper"] == plain
    for direction, metrics in found["inflation"].items():
        for name, value in metrics.items():
            assert value == found["leaky"][direction][name] - found["proper"][direction][name]
    assert set(leak["methods"]["mean"]["inflation"]["t2v"].values()) == {0}


def test_ranks_in_the_file_are_those_of_the_metrics(report, tmp_path):
    path = tmp_path / "deep" / "ranks.csv"
    found = report("--ranks", str(path), "--split", "all", "--method", "mean,dits")
    rows = read_ranks(path)
    assert list(rows[0]) == ["method", "direction", "query", "video", "caption", "rank"]
    for method, both in found["methods"].items():
        for direction, metrics in both.items():
            own = [row for row in rows if (row["method"], row["direction"]) == (method, direction)]
            assert [int(row["query"]) for row in own] == list(range(found["n"][direction]))
            assert metrics_of(np.array([float(row["rank"]) for row in own])).as_dict() == metrics
            assert all(bool(row["caption"]) == (direction == "t2v") for row in own)
    assert rows[0]["video"] == "clip0"
    assert rows[0]["caption"] == "a plain colour 0"


def test_hostile_captions_come_back_as_they_were(report, tmp_path):
    captions = ['a "quoted", sentence', "two\nlines", "=cmd|' /C calc'!A0", ",,,", "naïve 🎬 \u202e text", "a\rb"]
    queries = tmp_path / "queries.csv"
    with queries.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("video_id", "caption"), *(("clip2", caption) for caption in captions)])
    path = tmp_path / "ranks.csv"
    report("--queries", str(queries), "--ranks", str(path), "--method", "mean")
    assert [row["caption"] for row in read_ranks(path) if row["direction"] == "t2v"] == captions


def test_repeated_captions_are_counted_and_printed(base, report, capsys, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("video_id,caption\nclip2,the same\nclip5,the same\nclip8,another\nclip11,a third\n")
    found = report("--queries", str(path), "--method", "mean")
    assert (
        found["repeated_captions"] | {"repeated": 1, "t2v_ceiling": 75, "v2t_ceiling": 50}
        == (found["repeated_captions"])
    )
    assert found["methods"]["mean"]["t2v"]["R@1"] <= 75
    assert main([*base, "--queries", str(path), "--method", "mean"]) == 0
    assert "1 of the 4 queries repeat another's caption" in capsys.readouterr().out


def test_the_ceiling_is_said_of_the_methods_that_it_binds(base, capsys, tmp_path):
    path, weights = tmp_path / "queries.csv", tmp_path / "weights"
    path.write_text("video_id,caption\nclip2,the same\nclip5,the same\nclip8,another\nclip11,a third\n")
    sources, run = base[1:5], ["--epochs", "1", "--batch-size", "4"]
    assert main(["train", "prior", *sources, *run, "--out", str(weights / "prior.safetensors")]) == 0
    capsys.readouterr()
    evaluate = ["evaluate", *sources, "--weights", str(weights), "--queries", str(path)]
    lines = {}
    for methods, binding in (("mean", ["mean"]), ("mean,prior", ["mean"]), ("prior", [])):
        assert main([*evaluate, "--method", methods, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["repeated_captions"]["binding"] == binding
        assert main([*evaluate, "--method", methods]) == 0
        lines[methods] = capsys.readouterr().out.splitlines()[1]
    assert "identical texts rank alike: R@1 is at most 75.0" in lines["mean"]
    assert "identical texts rank alike under mean: R@1 is at most 75.0" in lines["mean,prior"]
    assert lines["prior"].startswith("1 of the 4 queries repeat another's caption")
    assert "R@1 is at most" not in lines["prior"]
    assert "identical texts can rank differently" in lines["prior"]


@pytest.mark.parametrize(("post", "temperature"), [("dsl", 100), ("qbnorm", 20)])
def test_post_processing_is_named_wherever_it_was_used(base, report, capsys, post, temperature):
    plain = report("--method", "mean,xpool")
    found = report("--method", "mean,xpool", "--post", post)
    assert (found["post"]["name"], found["post"]["temperature"]) == (post, temperature)
    if post == "qbnorm":
        assert found["post"]["bank"] == {"t2v": 8, "v2t": 4}
    else:
        assert "all test queries" in found["post"]["note"]
    assert found["methods"] != plain["methods"]
    assert main([*base, "--method", "mean", "--post", post]) == 0
    assert f"Post-processed, {post} at {temperature}: " in capsys.readouterr().out


def test_the_bank_is_the_training_split_in_both_directions(report, tiny_corpus, tiny_encoder):
    """Captions of training videos for texts, training videos for videos."""
    corpus = Corpus("tiny", read_clips(tiny_corpus / "captions.csv", tiny_corpus))
    test, train = corpus.split("test"), corpus.split("train")
    texts, bank_texts = (tiny_encoder.encode_text([q.caption for q in part.queries()]) for part in (test, train))
    videos, bank_videos = (mean_pool(embed_corpus(part, tiny_encoder).frames.half().float()) for part in (test, train))
    cosines = lambda a, b: (F.normalize(a, dim=-1) @ b.T).numpy()  # noqa: E731
    targets = match_queries(test.queries(), test.ids).targets
    by_text, by_video = query_bank([cosines(bank_texts, videos)]), query_bank([cosines(texts, bank_videos).T])
    scores = cosines(texts, videos)
    t2v = ranks_of(querybank_norm(scores, by_text), targets)
    v2t = video_to_text_ranks(querybank_norm(scores.T, by_video).T, targets)
    assert v2t.tolist() != video_to_text_ranks(querybank_norm(scores.T, query_bank([scores.T])).T, targets).tolist()
    found = report("--method", "mean", "--post", "qbnorm")["methods"]["mean"]
    assert found == {"t2v": metrics_of(t2v).as_dict(), "v2t": metrics_of(v2t).as_dict()}


def test_only_the_splits_that_are_needed_are_embedded(report, tmp_path, monkeypatch):
    """The evaluated one, and the bank of qbnorm."""
    with_all = [report("--method", "mean"), report("--method", "mean", "--post", "qbnorm")]
    monkeypatch.setenv("DITS_CACHE", str(tmp_path))
    for expected, flags, videos in zip(with_all, ([], ["--post", "qbnorm"]), (4, 8), strict=True):
        assert report("--method", "mean", *flags)["methods"] == expected["methods"]
        (path,) = (tmp_path / "embeddings").iterdir()
        assert len(load_file(path)["frames"]) == videos


def test_the_table_has_intervals_where_asked(base, capsys):
    assert main([*base, "--method", "xpool"]) == 0
    assert "[" not in capsys.readouterr().out
    assert main([*base, "--method", "xpool", "--intervals", "--confidence", "90", "--draw", "queries"]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| xpool | t2v |"))
    assert row.count("[") == len(METRIC_NAMES)
    assert "90 % bootstrap intervals over 1,000 resamples of the queries" in printed


def test_the_table_of_a_comparison_and_of_the_leak(base, capsys):
    assert main([*base, "--compare", "xpool,mean", "--leak"]) == 0
    printed = capsys.readouterr().out
    assert "| xpool minus mean | direction | difference | interval | p |" in printed
    assert "exact McNemar test" in printed
    assert "LEAKY ON PURPOSE, not a valid result" in printed
    assert "| mean | t2v | inflation | +0.0 |" in printed
    assert "| dits |" not in printed


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--compare", "dits"], "two different methods"),
        (["--compare", "dits,dits"], "two different methods"),
        (["--compare", "dits,magic"], "no method 'magic'"),
        (["--compare", "dits,mean", "--method", "mean"], "--method does not include both dits and mean"),
        (["--leak", "--post", "dsl"], "leave --post out"),
        (["--temperature", "5"], "--temperature needs --post"),
        (["--post", "dsl", "--temperature", "0"], "above 0"),
        (["--post", "dsl", "--temperature", "nan"], "above 0"),
        (["--post", "qbnorm", "--split", "all"], "evaluate another split"),
        (["--draw", "words"], "videos or queries"),
        (["--confidence", "nan"], "between 0 and 100"),
        (["--resamples", "0"], "from 1 to"),
        (["--ranks", "."], "is a folder"),
        (["--ranks", "/dev/null/ranks.csv"], "is not a folder"),
        (["--weights", "/nowhere", "--compare", "dits,xpool"], "one set of weights"),
        (["--weights", "/nowhere", "--ranks", "r.csv", "--leak"], "--ranks, --leak takes one set"),
    ],
)
def test_flags_without_meaning_are_one_sentence_before_any_work(base, capsys, flags, says):
    assert main([*base, *flags]) == 2
    output = capsys.readouterr()
    assert says in output.err
    assert len(output.err.splitlines()) == 1
    assert output.out == ""

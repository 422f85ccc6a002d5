"""`python -m dits analyse`: on a folder of small videos, and on valid and invalid files of embeddings."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from analysis.measures.gap import MEASURES, gap_measures
from dits.cli.parser import main
from dits.corpora.corpus import Corpus, read_clips
from dits.corpora.embeddings import embed_corpus
from dits.evaluation.metrics import METRIC_NAMES
from dits.models.pooling import mean_pool

FILES = {"report.html", "analysis.json", "steps.csv", "pairs.csv", "figures"}
QUICK = ["--resamples", "20", "--paths", "3"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tiny_corpus, tiny_folder, tmp_path_factory):
    """The command with a corpus, an encoder and weights."""
    weights = tmp_path_factory.mktemp("weights")
    sources = ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}"]
    run = ["--epochs", "1", "--batch-size", "4", "--learning-rate", "0.01"]
    network = ["--steps", "2", "--depth", "1", "--heads", "4"]
    for name, method, extra in (
        ("dits", "dits", [*network, "--noise-scale", "0"]),
        ("dits-noisy", "dits", [*network, "--inference-noise-scale", "1"]),
        ("diffusion", "diffusion", network),
        ("tmass", "tmass", []),
    ):
        assert main(["train", method, *sources, *run, *extra, "--out", str(weights / f"{name}.safetensors")]) == 0
    return ["analyse", *sources, "--weights", str(weights), "--split", "all", *QUICK]


@pytest.fixture
def report(base, capsys, tmp_path):
    """Runs the command with some more flags and reads its JSON."""

    def run(*flags):
        assert main([*base, "--out", str(tmp_path / "out"), *flags, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs the command, which must fail with one sentence and write nothing, and gives the sentence."""

    def run(*arguments):
        out = tmp_path / "refused"
        assert main([*arguments, "--out", str(out)]) == 2
        output = capsys.readouterr()
        assert len(output.err.splitlines()) == 1
        assert output.err.startswith("dits: ")
        assert output.out == ""
        assert not out.exists() or not any(out.iterdir())
        return output.err

    return run


def embeddings(texts=6, videos=6, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "text": rng.normal(size=(texts, dim)).astype(np.float32),
        "video": rng.normal(size=(videos, dim)).astype(np.float32),
    }


def saved(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return path


class TestCorpus:
    def test_every_step_of_dits(self, report, tmp_path, tiny_corpus, tiny_encoder):
        found = report()
        assert (found["corpus"], found["split"], found["method"]) == ("tiny", "all", "dits")
        assert (found["pairs"], found["videos"]) == (24, 12)
        assert [step["step"] for step in found["steps"]] == [0, 1, 2]
        assert all(set(MEASURES) | {"t2v"} < set(step) for step in found["steps"])
        assert tuple(found["steps"][0]["t2v"]) == METRIC_NAMES
        assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
        assert json.loads((tmp_path / "out" / "analysis.json").read_text()) == found
        clips = Corpus("tiny", read_clips(tiny_corpus / "captions.csv", tiny_corpus))
        frames = embed_corpus(clips, tiny_encoder).frames
        texts = tiny_encoder.encode_text([query.caption for query in clips.queries()])
        expected = gap_measures(texts, mean_pool(frames).repeat_interleave(2, dim=0))
        assert {name: found["steps"][0][name] for name in MEASURES} == pytest.approx(expected, abs=1e-4)

    def test_retrieval_is_what_evaluate_says(self, base, report, capsys):
        found = report()
        sources = base[1 : base.index("--split") + 2]
        assert main(["evaluate", *sources, "--method", "dits", "--resamples", "10", "--json"]) == 0
        evaluated = json.loads(capsys.readouterr().out)
        assert found["steps"][-1]["t2v"] == pytest.approx(evaluated["methods"]["dits"]["t2v"])

    def test_mean_pooling_has_one_step(self, report):
        found = report("--method", "mean")
        assert [step["step"] for step in found["steps"]] == [0]
        assert "path" in found["steps"][0]

    def test_other_weights_steps_and_sides(self, report):
        longer = report("--steps", "4", "--video-side", "pooled")
        assert len(longer["steps"]) == 5
        assert longer["video_side"] == "pooled"
        assert len(report("--method", "diffusion")["steps"]) == 4  # the text, noise, and two steps

    def test_seeds_of_the_noise_are_averaged(self, report):
        for flags in (("--method", "dits-noisy"), ("--noise", "0.5")):
            found = report(*flags, "--noise-seeds", "3")
            assert found["noise_seeds"] == 3
            assert found["steps"][-1]["spread"]["l2"] > 0

    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            (["--method", "magic"], "no method 'magic'"),
            (["--method", "../dits"], "no method '../dits'"),
            (["--method", ""], "no method ''"),
            (["--method", "tmass"], "aligns every pair"),
            (["--method", "xpool"], "weights are missing"),
            (["--split", "holiday"], "no split 'holiday'"),
            (["--noise-seeds", "3"], "draws no noise"),
            (["--noise-seeds", "0"], "at least 1, not 0"),
            (["--noise", "-1"], "cannot be negative"),
            (["--noise", "nan"], "finite number, not nan"),
            (["--noise", "inf"], "finite number, not inf"),
            (["--steps", "-1"], "-1"),
            (["--method", "mean", "--steps", "3"], "no T' or noise"),
            (["--paths", "-1"], "cannot be negative: -1"),
            (["--resamples", "-1"], "cannot be negative: -1"),
            (["--steps", "201"], "at most 200"),
            (["--resamples", "20000"], "10,000"),
        ],
    )
    def test_flags_without_meaning_are_one_sentence(self, base, refused, flags, says):
        assert says in refused(*base, *flags)

    def test_a_split_without_clips(self, base, refused, tiny_corpus, tmp_path):
        folder = tmp_path / "training-only"
        folder.mkdir()
        lines = (tiny_corpus / "captions.csv").read_text().splitlines()
        rest = [line for line in lines if ",test," not in line]
        (folder / "captions.csv").write_text("\n".join(rest) + "\n")
        for clip in tiny_corpus.glob("*.mp4"):
            (folder / clip.name).symlink_to(clip)
        assert "test split of corpus 'training-only' is empty" in refused(
            *base, "--corpus", str(folder), "--split", "test"
        )

    def test_a_file_where_the_folder_should_be(self, base, capsys, tmp_path):
        (tmp_path / "taken").touch()
        assert main([*base, "--out", str(tmp_path / "taken")]) == 2
        assert capsys.readouterr().err == f"dits: {tmp_path}/taken is not a folder: remove it, or choose another one.\n"


class TestFeatures:
    @pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
    def test_a_file_of_embeddings(self, capsys, tmp_path, suffix):
        arrays = embeddings()
        arrays["text_steps"] = np.stack([arrays["text"], (arrays["text"] + arrays["video"]) / 2])
        path = saved(tmp_path / f"mine{suffix}", arrays)
        assert main(["analyse", "--features", str(path), "--out", str(tmp_path / "out"), *QUICK, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["corpus"], found["split"], found["pairs"]) == (path.name, "all", 6)
        for step, texts in enumerate(arrays["text_steps"]):
            expected = gap_measures(torch.from_numpy(texts), torch.from_numpy(arrays["video"]))
            assert {name: found["steps"][step][name] for name in MEASURES} == pytest.approx(expected, abs=1e-6)
        assert {path.name for path in (tmp_path / "out").iterdir()} == FILES

    @pytest.mark.parametrize("pairs", [2, 3, 5, 20])
    def test_a_few_pairs_give_a_report(self, capsys, tmp_path, pairs):
        path = saved(tmp_path / "few.npz", embeddings(pairs, pairs))
        assert main(["analyse", "--features", str(path), "--out", str(tmp_path / "out"), *QUICK, "--json"]) == 0
        found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN
        assert found["pairs"] == pairs
        assert "too few" in found["maps"]["map-umap"]
        for name, (low, high) in found["steps"][0]["intervals"].items():
            assert low <= high, name

    def test_the_same_in_every_run(self, capsys, tmp_path):
        path = saved(tmp_path / "mine.npz", embeddings())
        runs = []
        for out in ("first", "second"):
            assert main(["analyse", "--features", str(path), "--out", str(tmp_path / out), *QUICK, "--json"]) == 0
            runs.append(capsys.readouterr().out)
        assert runs[0] == runs[1]

    @pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda a: a | {"text": a["text"][:1], "video": a["video"][:1]}, "at least two pairs"),
            (lambda a: a | {"text": np.ones_like(a["text"])}, "at least two distinct texts"),
            (lambda a: a | {"video": np.ones_like(a["video"])}, "at least two distinct texts"),
            (lambda a: a | {"text": np.full_like(a["text"], np.nan)}, "text holds NaN or infinite"),
            (lambda a: a | {"video": np.full_like(a["video"], np.inf)}, "video holds NaN or infinite"),
            (lambda a: a | {"text": a["text"] * np.eye(6, 1, dtype=np.float32)}, "is zero"),
            (lambda a: a | {"text": a["text"][:5]}, "5 texts and 6 videos"),
            (lambda a: a | {"text": a["text"][:, :7]}, "7 dimensions and video 8"),
            (lambda a: a | {"text": a["text"].astype(np.int32)}, "text holds int32"),
            (lambda a: a | {"text": a["text"][0]}, "shape (8)"),
            (lambda a: a | {"text": a["text"][:0]}, "shape (0, 8)"),
            (lambda a: a | {"labels": a["text"]}, "the unknown key 'labels'"),
            (lambda a: {"text": a["text"]}, "lacks the key 'video'"),
            (lambda a: a | {"pairs": np.zeros(6, dtype=np.int64)}, "two distinct videos"),
            (lambda a: a | {"pairs": np.full(6, 6)}, "outside 0 to 5"),
            (lambda a: a | {"pairs": np.zeros(6, dtype=np.float32)}, "whole numbers"),
            (lambda a: a | {"text_steps": a["text"]}, "text_steps"),
            (lambda a: a | {"text_steps": a["text"][None, :5]}, "text_steps must be"),
            (lambda a: a | {"text_steps": np.zeros((2, 6, 8), dtype=np.float32)}, "is zero"),
            (lambda a: {name: np.float32([[1], [-1]] * 3) for name in a}, "width 1 cannot be mapped"),
        ],
    )
    def test_what_cannot_be_measured_is_one_sentence(self, refused, tmp_path, change, says, suffix):
        path = saved(tmp_path / f"bad{suffix}", {k: np.ascontiguousarray(v) for k, v in change(embeddings()).items()})
        assert says in refused("analyse", "--features", str(path), *QUICK)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "not a safetensors or npz"),
            (b"text,video\n1,2\n", "not a safetensors or npz"),
            (pickle.dumps({"text": [1.0]}), "not a safetensors or npz"),
            (b"PK\x03\x04 a zip file cut short", "not a safetensors or npz"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
    def test_files_of_other_formats_are_one_sentence(self, refused, tmp_path, content, says, suffix):
        path = tmp_path / f"other{suffix}"
        path.write_bytes(content)
        assert says in refused("analyse", "--features", str(path))

    def test_pickled_arrays_are_not_read(self, refused, tmp_path):
        ran = tmp_path / "ran"

        class Trap:
            def __reduce__(self):
                return ran.touch, ()

        path = tmp_path / "trap.npz"
        np.savez(path, text=np.array([Trap()], dtype=object), video=embeddings()["video"], allow_pickle=True)
        assert "pickled objects are not read" in refused("analyse", "--features", str(path))
        torch.save({"text": torch.ones(2, 2)}, tmp_path / "weights.npz")
        refused("analyse", "--features", str(tmp_path / "weights.npz"))
        assert not ran.exists()

    def test_no_file_and_a_folder(self, refused, tmp_path):
        assert "There is no file" in refused("analyse", "--features", str(tmp_path / "none.npz"))
        assert "There is no file" in refused("analyse", "--features", str(tmp_path))

    @pytest.mark.parametrize(
        "flags",
        [["--steps", "3"], ["--steps", "0"], ["--noise", "0.5"], ["--noise", "0"], ["--noise-seeds", "2"],
         ["--weights", "folder"], ["--video-side", "pooled"], ["--corpus", "other"], ["--encoder", "other"],
         ["--split", "all"], ["--method", "xpool"], ["--strict"]],
    )  # fmt: skip
    def test_flags_of_a_corpus(self, refused, tmp_path, flags):
        path = saved(tmp_path / "mine.npz", embeddings())
        assert f"cannot be combined with {flags[0]}:" in refused("analyse", "--features", str(path), *flags)

"""The summary and the page of results made by hand, whose differences are known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.comparison.claims import FAILS, HOLDS, UNKNOWN
from analysis.comparison.features import Part
from analysis.comparison.methods import ENTRIES
from analysis.comparison.report import About, page, write_comparison
from analysis.comparison.runs import Run
from analysis.comparison.summary import COLUMNS, Comparison
from analysis.measures.gap import MEASURES
from dits.evaluation.significance import BootstrapConfig

NAMES = ("mean", "xpool", "tmass", "dits", "mlp")
CONFIG = BootstrapConfig(resamples=100)


def result(method, seed, ranks, mode="frozen", cosine=0.5, nearer=1.0, closed=0.2, ms=1.0):
    """A result on four videos with two captions each, of which the first is the query set "one"."""
    ranks = np.asarray(ranks, float)
    sets = {"one": ranks[::2], "all": ranks}
    per_video = {"captions": [2] * 4} | {
        name: [2 * value] * 4
        for name, value in (
            ("cosine_before", 0.3), ("cosine_after", cosine), ("nearer", nearer), ("angle", 10.0),
            ("pooled_before", 0.4), ("pooled_after", 0.6),
        )
    }  # fmt: skip
    gap = {"before": dict.fromkeys(MEASURES, 0.5), "after": dict.fromkeys(MEASURES, 0.25)}
    moves = {"per_video": per_video, "closed": closed, "closed_from_frozen": closed, "gap": gap}
    return {
        "mode": mode, "method": method, "seed": seed, "steps": 8, "best": {"epoch": 2},
        "ranks": {n: {"t2v": r.tolist(), "v2t": [1.0, 2.0, 1.0, 1.0]} for n, r in sets.items()},
        "aligned on": "all", "alignment": {} if method == "tmass" else moves, "ms": {"step": 5.0, "query": ms},
        "leak": {"correct": 50.0, "leaky": 60.0},
    }  # fmt: skip


RESULTS = [
    result(*arguments, mode=mode, cosine=0.6 if mode == "joint" else 0.5)
    for mode in ("frozen", "joint")
    for seed in (1, 2)
    for arguments in (
        ("mean", seed, [2, 2, 2, 2, 2, 2, 2, 2]),
        ("xpool", seed, [1, 1, 1, 1, 3, 3, 3, 3]),
        ("tmass", seed, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("dits", seed, [1, 1, 1, 1, 1, 1, 1, 1] if mode == "joint" else [1, 3, 3, 3, 2, 2, 2, 2]),
        ("mlp", seed, [9] * 8),
    )
]


@pytest.fixture
def measured(plan, corpus):
    """The fixture's plan with four videos of two captions each."""
    one = Part(np.arange(4), np.arange(4), np.arange(4), "one caption a video")
    all_of_them = Part(np.arange(8), np.repeat(np.arange(4), 2), np.arange(4), "all captions")
    return replace(plan, corpus=replace(corpus, queries={"one": one, "all": all_of_them}))


@pytest.fixture
def summary(measured):
    return Comparison(measured, [ENTRIES[name] for name in NAMES], RESULTS, CONFIG).summary()


def verdicts(claims, text):
    (claim,) = [claim for claim in claims if claim["text"] == text]
    return {name: (values["value"], values["verdict"]) for name, values in claim["here"].items()}


def test_claims_follow_from_the_ranks(summary):
    joint, frozen, both = (summary["claims"][name] for name in ("joint", "frozen", "both"))
    better = "DITS ranks better than X-Pool"
    assert verdicts(joint, better) == {"one": (50, UNKNOWN), "all": (50, UNKNOWN)}  # two of four videos, by chance none
    assert verdicts(frozen, better) == {"one": (-25, UNKNOWN), "all": (-37.5, UNKNOWN)}
    assert verdicts(joint, "DITS ranks better than T-MASS") == {"one": (0, UNKNOWN), "all": (0, UNKNOWN)}
    assert verdicts(frozen, "DITS moves most texts nearer to their videos (share)") == {"all": (0.5, HOLDS)}
    assert verdicts(joint, "DITS closes the distance of the centroids (share)") == {"all": (pytest.approx(0.2), HOLDS)}
    assert verdicts(joint, "T-MASS takes longer than DITS (ms a query)") == {"one": (0, UNKNOWN)}
    jointly = verdicts(both, "DITS trained jointly ranks better than with the encoder fixed")
    assert jointly == {"one": (75, HOLDS), "all": (87.5, HOLDS)}
    cosine = verdicts(both, "Joint training brings pairs nearer than a fixed encoder (cosine)")
    assert cosine == {"all": (pytest.approx(0.1), HOLDS)}
    assert verdicts(summary["controls"]["frozen"], "X-Pool ranks better than mean pooling")["all"] == (50, UNKNOWN)
    assert {claim["first"] for claim in frozen} <= set(NAMES)  # claims on methods without results are left out


def test_tests_against_the_references(summary):
    tests = summary["results"]["frozen"]["mlp"]["tests"]["all"]["t2v"]
    assert tests["xpool"]["R@1"]["value"] == -50
    assert tests["mean"]["MnR"]["value"] == 7
    assert tests["mean"]["MnR"]["low"] == tests["mean"]["MnR"]["high"] == 7
    assert "xpool" not in summary["results"]["frozen"]["xpool"]["tests"]["all"]["t2v"]


def test_values_by_method(summary):
    dits = summary["results"]["joint"]["dits"]
    assert dits["alignment"]["cosine_after"]["mean"] == pytest.approx(0.6)
    assert dits["alignment"]["angle"]["mean"] == pytest.approx(10)
    assert dits["gap"]["rmg"]["after"] == {"mean": 0.25, "std": 0}
    assert dits["ranking"]["all"]["v2t"]["R@1"]["mean"] == 75
    assert summary["results"]["joint"]["tmass"]["alignment"] == {}


def test_a_claim_that_the_data_refute(measured):
    worse = [result("xpool", 1, [1] * 8), result("dits", 1, [2] * 8), result("mean", 1, [1] * 8)]
    claims = Comparison(measured, [ENTRIES[n] for n in ("mean", "xpool", "dits")], worse, CONFIG).summary()["claims"]
    assert verdicts(claims["frozen"], "DITS ranks better than X-Pool")["one"] == (-100, FAILS)
    closed = verdicts(claims["frozen"], "DITS closes the distance of the centroids (share)")
    assert closed == {"all": (pytest.approx(0.2), UNKNOWN)}  # one seed has no interval over seeds


def test_the_files_of_a_comparison(measured, tmp_path):
    entries = [ENTRIES[name] for name in NAMES]
    failures = [(Run(ENTRIES["diffusion"], "joint", 1), "The loss is not finite.")]
    about = About("msrvtt-7k:DIR", "python -m analysis compare")
    path = write_comparison(tmp_path, measured, entries, RESULTS, failures, (1, 2), about, CONFIG)
    text = path.read_text()
    assert "| DITS ranks better than X-Pool | Table 1 | 51.9 and 46.9 | +50.0 [" in text
    assert "- joint, Diffusion, predicted gap bounded, seed 1: The loss is not finite." in text
    assert "| X-Pool | 50.0 ± 0.0 | 100.0 ± 0.0 |" in text
    assert "| T-MASS | moves pairs: no v_0 |" in text
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert page(stored) == text
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 1 + 2 * 5 * 2 * 2 * 2
    assert lines[1].startswith("frozen,mean,one,t2v,1,2,0.0,100.0,100.0,100.0,2.0,2.0")

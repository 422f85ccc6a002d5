"""The Markdown tables of a comparison's report, from its summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.comparison.claims import FAILS, HOLDS, UNKNOWN
from analysis.comparison.markdown import table
from analysis.comparison.methods import REFERENCES
from analysis.measures.gap import MEASURES

Summary = dict[str, Any]
"""Values of `analysis.comparison.summary.Comparison.summary`."""

RANKING = ("R@1", "R@5", "R@10", "MdR", "MnR")

PAIRS = ("cosine", "l2", "l1", "alignment", "centroid_distance", "rmg", "frechet", "mmd")
"""The gap measures of the first table; the second has the others."""

_COUNTED = {HOLDS: "hold here", FAILS: "do not hold", UNKNOWN: "cannot be told"}
_TITLES = {"xpool": "X-Pool", "mean": "mean pooling"}


def ranking_table(methods: Summary, titles: Mapping[str, str], queries: str, direction: str) -> str:
    """Ranks of every method: mean and spread over seeds, the interval of R@1, and the tests against REFERENCES."""
    head = ["", *RANKING, "R@1, 95 %", *(f"R@1 to {_TITLES[name]}, p" for name in REFERENCES)]
    rows = []
    for name, values in methods.items():
        metrics, tests = values["ranking"][queries][direction], values["tests"][queries][direction]
        rows.append(
            [
                titles[name],
                *(spread_of(metrics[metric]) for metric in RANKING),
                interval_of(metrics["R@1"]),
                *(_difference(tests.get(reference)) for reference in REFERENCES),
            ]
        )
    return table(head, rows)


def movement_table(methods: Summary, titles: Mapping[str, str]) -> str:
    """How each method moves texts: cosines, the share that comes nearer, the angle, and the closed share."""
    head = [
        "", "cosine of t", "cosine of v_0", "nearer", "turned", "centroids closed", "closed, to the frozen encoder's",
        "pooled: t", "pooled: v_0",
    ]  # fmt: skip
    rows = []
    for name, values in methods.items():
        moved = values["alignment"]
        if not moved:
            rows.append([titles[name], "moves pairs: no v_0", *[""] * 7])
            continue
        rows.append(
            [
                titles[name],
                f"{moved['cosine_before']['mean']:.3f}",
                f"{moved['cosine_after']['mean']:.3f} {interval_of(moved['cosine_after'], 3)}",
                f"{100 * moved['nearer']['mean']:.1f} %",
                f"{moved['angle']['mean']:.1f}°",
                _percent(moved["closed"]),
                _percent(moved["closed_from_frozen"]),
                f"{moved['pooled_before']['mean']:.3f}",
                f"{moved['pooled_after']['mean']:.3f}",
            ]
        )
    return table(head, rows)


def gap_table(methods: Summary, titles: Mapping[str, str], measures: Sequence[str]) -> str:
    """Measures of the gap between texts and videos, before and after each method, as means over seeds."""
    rows = [
        [
            titles[name],
            *(f"{values['gap'][m]['before']['mean']:.3f} → {values['gap'][m]['after']['mean']:.3f}" for m in measures),
        ]
        for name, values in methods.items()
        if values["gap"]
    ]
    return table(["", *(MEASURES[name].title for name in measures)], rows)


def time_table(methods: Summary, titles: Mapping[str, str]) -> str:
    """Milliseconds of each method for an optimiser step, to align a text, and for a whole query."""
    head = ["", "optimiser step", "aligning a query", "a query with all videos"]
    keys = ("step", "align", "query")
    rows = [[titles[name], *(spread_of(v["ms"].get(key), 2) for key in keys)] for name, v in methods.items()]
    return table(head, rows)


def leak_table(methods: Summary, titles: Mapping[str, str]) -> str:
    """R@1 of each method, correct and with the leak."""
    rows = []
    for name, values in methods.items():
        leak = values["leak"]
        gain = leak["leaky"]["mean"] - leak["correct"]["mean"]
        rows.append([titles[name], spread_of(leak["correct"]), spread_of(leak["leaky"]), f"{gain:+.1f}"])
    return table(["", "correct", "leaky", "gain"], rows)


def claims_table(claims: Sequence[dict[str, Any]], sets: Mapping[str, str], with_paper: bool = True) -> str:
    """Claims with the difference here and the verdict, for each query set; other measures have one value."""
    head = ["claim", *(["source", "paper"] if with_paper else [])]
    head += [heading for title in sets.values() for heading in (f"here, {title}", "verdict")]
    rows = []
    for claim in claims:
        cells = [claim["text"], *([claim["source"], claim["paper"]] if with_paper else [])]
        digits = {"R@1": 1, "nearer": 3, "query": 2}.get(claim["measure"], 3)
        for name in sets:
            value = claim["here"].get(name)
            cells += (
                [f"{value['value']:+.{digits}f} {interval_of(value, digits)}", value["verdict"]] if value else ["", ""]
            )
        rows.append(cells)
    return table(head, rows, texts=3 if with_paper else 1)


def verdict_counts(claims: Sequence[dict[str, Any]]) -> str:
    """How many claims have each verdict: by the last query set, or the one on which the claim's measure is measured."""
    verdicts = [next(reversed(claim["here"].values()))["verdict"] for claim in claims if claim["here"]]
    counts = [f"{verdicts.count(name)} {phrase}" for name, phrase in _COUNTED.items()]
    return f"Of {len(verdicts)} claims, by the last column that has a verdict: {', '.join(counts)}."


def spread_of(values: dict[str, float] | None, digits: int = 1) -> str:
    """Mean and standard deviation over seeds; empty if there is no value."""
    return f"{values['mean']:.{digits}f} ± {values['std']:.{digits}f}" if values else ""


def interval_of(values: dict[str, float | None], digits: int = 1) -> str:
    """An interval; empty if it has no limits."""
    low, high = values.get("low"), values.get("high")
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _difference(test: dict[str, Any] | None) -> str:
    if test is None:
        return ""
    values = test["R@1"]
    return f"{values['value']:+.1f} [{values['low']:+.1f}, {values['high']:+.1f}], {values['p']:.3f}"


def _percent(values: dict[str, float]) -> str:
    return f"{100 * values['mean']:.1f} ± {100 * values['std']:.1f} %"

"""The numbers of a comparison as JSON values: means and spreads over seeds, intervals, tests, verdicts on claims."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from analysis.comparison.claims import CLAIMS, CONTROLS, Claim, verdict
from analysis.comparison.measures import PER_VIDEO
from analysis.comparison.methods import MODES, REFERENCES, Entry
from analysis.comparison.runs import Plan
from analysis.comparison.statistics import Estimate, VideoBootstrap, over_seeds, spread
from dits.evaluation.metrics import METRIC_NAMES, metrics_of
from dits.evaluation.significance import BootstrapConfig

Result = dict[str, Any]
"""The result of a run (`analysis.comparison.runs.carry_out`)."""

DIRECTIONS = ("t2v", "v2t")


class Comparison:
    """The results of all runs, with the bootstraps of their queries."""

    def __init__(
        self, plan: Plan, entries: Sequence[Entry], results: Sequence[Result], config: BootstrapConfig
    ) -> None:
        """`results` have the seeds of a method in the same order for all methods."""
        self.plan, self.entries = plan, entries
        self._runs: dict[tuple[str, str], list[Result]] = {}
        for result in results:
            self._runs.setdefault((result["mode"], result["method"]), []).append(result)
        self._text = {name: VideoBootstrap(part.video_of, config) for name, part in plan.queries.items()}
        videos = {name: np.unique(part.video_of) for name, part in plan.queries.items()}
        self._video = {name: VideoBootstrap(numbers, config) for name, numbers in videos.items()}

    @property
    def modes(self) -> list[str]:
        """The modes that have results."""
        return [mode for mode in MODES if any(mode == key[0] for key in self._runs)]

    def runs(self, mode: str, method: str) -> list[Result]:
        """The results of a method in a mode, one a seed; empty if it has none."""
        return self._runs.get((mode, method), [])

    def summary(self) -> dict[str, Any]:
        """Results by mode and method; claims and controls by mode, and under "both" those that compare the modes."""
        return {
            "results": {
                mode: {
                    entry.name: self._method(mode, entry.name) for entry in self.entries if self.runs(mode, entry.name)
                }
                for mode in self.modes
            },
            "claims": {mode: self._judged(CLAIMS, mode) for mode in (*self.modes, "both")},
            "controls": {mode: self._judged(CONTROLS, mode) for mode in self.modes},
        }

    def rows(self) -> list[list[Any]]:
        """A row of `COLUMNS` for every mode, method, query set, direction and seed."""
        return [
            [
                mode,
                entry.name,
                name,
                direction,
                result["seed"],
                result["best"]["epoch"],
                *_metrics(result, name, direction),
            ]
            for mode in self.modes
            for entry in self.entries
            for result in self.runs(mode, entry.name)
            for name in self.plan.queries
            for direction in DIRECTIONS
        ]

    def _method(self, mode: str, method: str) -> dict[str, Any]:
        runs = self.runs(mode, method)
        return {
            "best_epochs": [run["best"]["epoch"] for run in runs],
            "steps": [run["steps"] for run in runs],
            "ranking": {
                name: {direction: self._ranking(runs, name, direction) for direction in DIRECTIONS}
                for name in self.plan.queries
            },
            "tests": {
                name: {direction: self._tests(mode, method, name, direction) for direction in DIRECTIONS}
                for name in self.plan.queries
            },
            "alignment": self._alignment(runs),
            "gap": _gap(runs),
            "ms": _by_key([run["ms"] for run in runs]),
            "leak": _by_key([run.get("leak", {}) for run in runs]),
        }

    def _ranking(self, runs: Sequence[Result], name: str, direction: str) -> dict[str, Any]:
        """Mean and standard deviation over seeds of every metric, and its interval, which the median rank lacks."""
        metrics = np.array([_metrics(run, name, direction) for run in runs])
        intervals = self._bootstrap(name, direction).estimates(_ranks(runs, name, direction))
        return {
            metric: _mean_and_spread(column) | _limits(intervals.get(metric))
            for metric, column in zip(METRIC_NAMES, metrics.T.tolist(), strict=True)
        }

    def _tests(self, mode: str, method: str, name: str, direction: str) -> dict[str, Any]:
        """The paired differences to each of REFERENCES in the same mode."""
        ranks = _ranks(self.runs(mode, method), name, direction)
        tests = {}
        for reference in REFERENCES:
            others = self.runs(mode, reference)
            if reference != method and others:
                bootstrap = self._bootstrap(name, direction)
                differences = bootstrap.differences(ranks, _ranks(others, name, direction))
                tests[reference] = {metric: asdict(values) for metric, values in differences.items()}
        return tests

    def _alignment(self, runs: Sequence[Result]) -> dict[str, Any]:
        """How texts move; the values of captions have an interval over videos, the shares of distances over seeds."""
        if not runs[0]["alignment"]:
            return {}
        per_caption = {name: self._per_caption(runs, name) for name in PER_VIDEO}
        closed = {name: [run["alignment"][name] for run in runs] for name in ("closed", "closed_from_frozen")}
        return {
            **{name: {"mean": value.value} | _limits(value) for name, value in per_caption.items()},
            **{name: _mean_and_spread(values) | _limits(over_seeds(values)) for name, values in closed.items()},
        }

    def _per_caption(self, runs: Sequence[Result], name: str) -> Estimate:
        return self._text[runs[0]["aligned on"]].estimate_of_sums(_sums(runs, name))

    def _judged(self, claims: Sequence[Claim], mode: str) -> list[dict[str, Any]]:
        """The claims of a mode that have results, each with its estimates and verdicts, by query set."""
        judged = []
        for claim in claims:
            if (claim.modes is None) == (mode == "both"):
                continue
            modes = claim.modes or (mode, mode)
            first = self.runs(modes[0], claim.first)
            second = self.runs(modes[1], claim.second) if claim.second else first
            if not first or not second:
                continue
            estimates = self._estimates(claim, first, second)
            verdicts = {name: _judgement(value) for name, value in estimates.items()}
            judged.append(asdict(claim) | {"here": verdicts})
        return judged

    def _estimates(self, claim: Claim, first: Sequence[Result], second: Sequence[Result]) -> dict[str, Estimate]:
        """The difference that the claim is about, by query set; by the set that it was measured on, if it is one."""
        if claim.measure == "R@1":
            return {
                name: Estimate.of(
                    self._text[name].differences(_ranks(first, name, "t2v"), _ranks(second, name, "t2v"))["R@1"]
                )
                for name in self.plan.queries
            }
        name = "one" if claim.measure == "query" else first[0]["aligned on"]
        return {name: self._estimate(claim.measure, first, second)} if _has(claim.measure, first, second) else {}

    def _estimate(self, measure: str, first: Sequence[Result], second: Sequence[Result]) -> Estimate:
        if measure == "query":
            others = {run["seed"]: run for run in second}
            pairs = [(run, others[run["seed"]]) for run in first if run["seed"] in others]
            return over_seeds([a["ms"]["query"] - b["ms"]["query"] for a, b in pairs])
        if measure == "closed":
            return over_seeds([run["alignment"]["closed"] for run in first])
        bootstrap = self._text[first[0]["aligned on"]]
        if measure == "cosine":
            return bootstrap.estimate_of_sums(_sums(first, "cosine_after") - _sums(second, "cosine_after"))
        captions = np.array(first[0]["alignment"]["per_video"]["captions"])
        half = captions[captions > 0] / 2
        return bootstrap.estimate_of_sums(_sums(first, "nearer") - half)

    def _bootstrap(self, name: str, direction: str) -> VideoBootstrap:
        return (self._text if direction == "t2v" else self._video)[name]


COLUMNS = ("mode", "method", "queries", "direction", "seed", "epoch", *METRIC_NAMES)
"""The columns of `Comparison.rows`."""


def _has(measure: str, first: Sequence[Result], second: Sequence[Result]) -> bool:
    """Whether the runs have this measure: that of times needs a common seed, those of alignment a v_0."""
    if measure == "query":
        return bool({run["seed"] for run in first} & {run["seed"] for run in second})
    return all(run["alignment"] for run in (*first, *second))


def _ranks(runs: Sequence[Result], name: str, direction: str) -> np.ndarray:
    """The ranks (S, N) of all seeds."""
    return np.array([run["ranks"][name][direction] for run in runs])


def _metrics(run: Result, name: str, direction: str) -> list[float]:
    return list(metrics_of(np.array(run["ranks"][name][direction])).as_dict().values())


def _sums(runs: Sequence[Result], name: str) -> np.ndarray:
    """The sums (videos,) of a value over the captions of each captioned video, averaged over seeds."""
    captioned = np.array(runs[0]["alignment"]["per_video"]["captions"]) > 0
    return np.mean([run["alignment"]["per_video"][name] for run in runs], axis=0)[captioned]


def _gap(runs: Sequence[Result]) -> dict[str, Any]:
    """Every measure of the gap before and after, with mean and spread over seeds."""
    gaps = [run["alignment"]["gap"] for run in runs if "gap" in run["alignment"]]
    if not gaps:
        return {}
    return {
        name: {end: _mean_and_spread([gap[end][name] for gap in gaps]) for end in ("before", "after")}
        for name in gaps[0]["before"]
    }


def _by_key(values: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """Mean and spread of each key, over the seeds that have a value of it."""
    columns = {key: [v for v in (run.get(key) for run in values) if v is not None] for key in values[0]}
    return {key: _mean_and_spread(column) for key, column in columns.items() if column}


def _judgement(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, **_limits(estimate), "verdict": verdict(estimate)}


def _mean_and_spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "std": spread(values)}


def _limits(estimate: Estimate | None) -> dict[str, float | None]:
    """The limits of an interval; None if it has no limits."""
    if estimate is None:
        return {}
    return {name: v if np.isfinite(v) else None for name, v in (("low", estimate.low), ("high", estimate.high))}

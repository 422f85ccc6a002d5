"""Everything that is measured on a flow: the gap at every step, beside the retrieval at that step."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from analysis.flow import Flow, cosine_scores
from analysis.measures.bootstrap import gap_intervals
from analysis.measures.gap import MEASURES, centroid_gap, shift_along_gap
from analysis.measures.points import sampled
from analysis.measures.trajectory import (
    PATH_MEASURES,
    QUANTILES,
    StepReport,
    bands,
    followed,
    largest_step_share,
    path_measures,
    ranks_at,
    step_reports,
)
from dits.common.errors import require
from dits.evaluation.metrics import Metrics, metrics_of

SHIFTS = tuple(round(share / 10, 1) for share in range(11))
"""Shares of the mean gap that are closed by arithmetic, for comparison."""


@dataclass(frozen=True)
class ReportConfig:
    """What is measured.

    Attributes:
        resamples: bootstrap resamples of the videos; 0 leaves the intervals out.
        seed: of the bootstrap and of whatever is sampled.
    """

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.resamples >= 0, f"The number of resamples cannot be negative: {self.resamples}.")


@dataclass(frozen=True)
class Shift:
    """What closing a share of the mean gap by arithmetic does (Liang et al. 2022).

    Attributes:
        share: of the gap that is closed.
        centroid_distance: what is left of it, after normalising again.
        cosine: mean cosine of the pairs.
        t2v: text-to-video metrics by the cosine.
    """

    share: float
    centroid_distance: float
    cosine: float
    t2v: Metrics


@dataclass(frozen=True)
class Analysis:
    """What was measured on a flow, or on several that differ in the seed of their noise.

    Attributes:
        flows: what was analysed, each with the text as its first point.
        reports: for each flow, a report of each of its steps.
        paths: of the first flow, every path measure (S, N), of the texts that were followed.
        followed: the first flow's texts that were ranked and followed: all, or a sample.
        intervals: 95 % bootstrap intervals of the first flow's measures, by step: the first and the last.
        shifts: what arithmetic does to the same pairs.
    """

    flows: tuple[Flow, ...]
    reports: tuple[list[StepReport], ...]
    paths: dict[str, np.ndarray]
    followed: Flow
    intervals: dict[int, dict[str, tuple[float, float]]]
    shifts: list[Shift]

    @property
    def flow(self) -> Flow:
        """The first flow: the one that is drawn."""
        return self.flows[0]

    def as_dict(self) -> dict[str, Any]:
        """The analysis as JSON values.

        `steps` has one entry for each point of the way, the text itself being the first and v_0 the last: every measure
        of `analysis.measures.gap.MEASURES`, text-to-video metrics under `t2v`, and under `path` mean and quantiles of
        what PATH_MEASURES names (a single video has no distractor). The first and the last have `intervals`. With
        several flows the measures and metrics are means over them, and every step has `spread`, their standard
        deviations.
        """
        flow = self.flow
        steps = [_step([reports[step] for reports in self.reports]) for step in range(len(flow.points))]
        for step, values in enumerate(steps):
            values["path"] = {
                name: {"mean": float(paths[step].mean()), "quantiles": bands(paths)[step].tolist()}
                for name, paths in self.paths.items()
                if not np.isnan(paths).any()
            }
            if step in self.intervals:
                values["intervals"] = {name: list(bounds) for name, bounds in self.intervals[step].items()}
        return {
            "corpus": flow.name,
            "split": flow.split,
            "method": flow.method,
            "pairs": len(flow.texts),
            "videos": len(flow.videos),
            "video_side": flow.video_side,
            "noise_seeds": len(self.flows),
            "sampled": _sampled(flow, self.followed),
            "measures": {name: measure.as_dict() for name, measure in MEASURES.items()},
            "path_measures": PATH_MEASURES,
            "quantiles": list(QUANTILES),
            "steps": steps,
            "largest_step_share": float(np.median(largest_step_share(self.followed.points))),
            "mean_shift": [asdict(shift) | {"t2v": shift.t2v.as_dict()} for shift in self.shifts],
        }


def analyse(flows: Sequence[Flow], config: ReportConfig | None = None) -> Analysis:
    """Measures a flow, or several that differ in the seed of their noise.

    Raises:
        InputError: there is no flow, or its embeddings cannot be measured (see `gap_measures`).
    """
    config = config or ReportConfig()
    require(len(flows) > 0, "There is nothing to analyse: give at least one flow.")
    flows = [flow.from_text() for flow in flows]
    first = flows[0]
    kept = followed(first, config.seed)
    paths = path_measures(kept)
    others = [step_reports(flow, path_measures(followed(flow, config.seed))) for flow in flows[1:]]
    return Analysis(
        flows=tuple(flows),
        reports=(step_reports(first, paths), *others),
        paths=paths,
        followed=kept,
        intervals=_intervals(first, config),
        shifts=mean_shift(kept),
    )


@torch.inference_mode()
def mean_shift(flow: Flow) -> list[Shift]:
    """The gap closed by arithmetic, both clouds moved towards each other along it and normalised again.

    For each of SHIFTS; the videos of the gallery move as the videos of the pairs do. What a sampler does to the gap is
    to be held against this.
    """
    gap = centroid_gap(flow.queries, flow.own_videos).to(flow.videos)
    gallery = F.normalize(flow.videos, dim=-1)
    rows = []
    for share in SHIFTS:
        texts, own = shift_along_gap(flow.queries, flow.own_videos, share)
        moved = replace(flow, points=texts[None], scores=cosine_scores(gallery - share / 2 * gap))
        rows.append(
            Shift(
                share=share,
                centroid_distance=float(centroid_gap(texts, own).norm()),
                cosine=float(F.cosine_similarity(texts, own).mean()),
                t2v=metrics_of(ranks_at(moved, 0)),
            )
        )
    return rows


def _intervals(flow: Flow, config: ReportConfig) -> dict[int, dict[str, tuple[float, float]]]:
    if not config.resamples:
        return {}
    return {
        step: gap_intervals(
            flow.points[step], flow.own_videos, flow.video_of, resamples=config.resamples, seed=config.seed
        )
        for step in sorted({0, len(flow.points) - 1})
    }


def _step(runs: list[StepReport]) -> dict[str, Any]:
    """One step's values, averaged over runs; their standard deviations under `spread`, where there are several."""
    values = [{**run.gap, "t2v": run.t2v.as_dict()} for run in runs]
    place = {"step": runs[0].step, "timestep": runs[0].timestep}
    if len(runs) == 1:
        return place | values[0]
    return place | _over(fmean, values) | {"spread": _over(stdev, values)}


def _over(statistic: Any, values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _over(statistic, [value[key] for value in values]) for key in values[0]}
    return statistic(values)


def _sampled(flow: Flow, kept: Flow) -> dict[str, int]:
    """What was measured on a random sample, and of how many texts or points."""
    notes = {}
    if len(kept.texts) < len(flow.texts):
        notes["retrieval and paths"] = len(kept.texts)
    if size := sampled(len(flow.texts)):
        notes["quadratic measures"] = size
    return notes

"""The analysis of a flow: the modality gap and the retrieval metrics at every step."""

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
from analysis.measures.points import sample_size
from analysis.measures.trajectory import (
    PATH_MEASURES,
    QUANTILES,
    StepReport,
    bands,
    largest_step_share,
    path_measures,
    ranks_at,
    sample_texts,
    step_reports,
)
from dits.common.errors import require
from dits.evaluation.metrics import Metrics, metrics_of

SHIFTS = tuple(round(share / 10, 1) for share in range(11))
"""Shares of the mean gap that are closed by arithmetic, for comparison."""


@dataclass(frozen=True)
class ReportConfig:
    """Settings of an analysis.

    Attributes:
        resamples: number of bootstrap resamples of the videos; 0 omits the intervals.
        seed: the seed of the bootstrap and of all random samples.
    """

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.resamples >= 0, f"The number of resamples cannot be negative: {self.resamples}.")


@dataclass(frozen=True)
class Shift:
    """The effect of closing a share of the mean gap by arithmetic (Liang et al. 2022).

    Attributes:
        share: the share of the gap that is closed.
        centroid_distance: the distance of the centroids that remains after normalising again.
        cosine: mean cosine of the pairs.
        t2v: text-to-video metrics by the cosine.
    """

    share: float
    centroid_distance: float
    cosine: float
    t2v: Metrics


@dataclass(frozen=True)
class Analysis:
    """The results for one flow, or for several that differ only in the seed of their noise.

    Attributes:
        flows: the analysed flows; every trajectory starts at its text.
        reports: for each flow, one report a step.
        paths: every path measure (S, N) of `sample`.
        sample: the texts of the first flow for ranking and path measures: all, or a random sample.
        intervals: 95 % bootstrap intervals of the first flow's measures at its first and last step, by step.
        shifts: the effect of arithmetic shifts on `sample`.
    """

    flows: tuple[Flow, ...]
    reports: tuple[list[StepReport], ...]
    paths: dict[str, np.ndarray]
    sample: Flow
    intervals: dict[int, dict[str, tuple[float, float]]]
    shifts: list[Shift]

    @property
    def flow(self) -> Flow:
        """The first flow, which the figures show."""
        return self.flows[0]

    def as_dict(self) -> dict[str, Any]:
        """The analysis as JSON values.

        `steps` has one entry for each point of the trajectory, from the text to v_0: all of
        `analysis.measures.gap.MEASURES`, text-to-video metrics under `t2v`, and mean and quantiles of PATH_MEASURES
        under `path` (without the distractor's cosine if there is a single video). The first and the last entry have
        `intervals`. With several flows, measures and metrics are means over the flows, and `spread` has their standard
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
            "sampled": _sample_sizes(flow, self.sample),
            "measures": {name: measure.as_dict() for name, measure in MEASURES.items()},
            "path_measures": PATH_MEASURES,
            "quantiles": list(QUANTILES),
            "steps": steps,
            "largest_step_share": float(np.median(largest_step_share(self.sample.points))),
            "mean_shift": [asdict(shift) | {"t2v": shift.t2v.as_dict()} for shift in self.shifts],
        }


def analyse(flows: Sequence[Flow], config: ReportConfig | None = None) -> Analysis:
    """Measure a flow, or several that differ only in the seed of their noise.

    Raises:
        InputError: there is no flow, or its embeddings cannot be measured (see `gap_measures`).
    """
    config = config or ReportConfig()
    require(len(flows) > 0, "There is nothing to analyse: give at least one flow.")
    flows = [flow.starting_at_text() for flow in flows]
    first = flows[0]
    sample = sample_texts(first, config.seed)
    paths = path_measures(sample)
    others = [step_reports(flow, path_measures(sample_texts(flow, config.seed))) for flow in flows[1:]]
    return Analysis(
        flows=tuple(flows),
        reports=(step_reports(first, paths), *others),
        paths=paths,
        sample=sample,
        intervals={
            step: gap_intervals(
                first.points[step], first.own_videos, first.video_of, resamples=config.resamples, seed=config.seed
            )
            for step in sorted({0, len(first.points) - 1})
            if config.resamples
        },
        shifts=mean_shift(sample),
    )


@torch.inference_mode()
def mean_shift(flow: Flow) -> list[Shift]:
    """The effect of each of SHIFTS, as a baseline for a sampler.

    Both clouds move towards each other along the mean gap and are normalised again. The videos of the gallery move as
    the videos of the pairs do.
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


def _step(runs: list[StepReport]) -> dict[str, Any]:
    """One step's values, averaged over several runs, with their standard deviations under `spread`."""
    values = [{**run.gap, "t2v": run.t2v.as_dict()} for run in runs]
    numbers = {"step": runs[0].step, "timestep": runs[0].timestep}
    if len(runs) == 1:
        return numbers | values[0]
    return numbers | _aggregate(fmean, values) | {"spread": _aggregate(stdev, values)}


def _aggregate(statistic: Any, values: list[Any]) -> Any:
    """The statistic of equal keys, through nested dicts."""
    if isinstance(values[0], dict):
        return {key: _aggregate(statistic, [value[key] for value in values]) for key in values[0]}
    return statistic(values)


def _sample_sizes(flow: Flow, sample: Flow) -> dict[str, int]:
    """The results that come from a random sample, with its number of texts or points."""
    sizes = {}
    if len(sample.texts) < len(flow.texts):
        sizes["retrieval and paths"] = len(sample.texts)
    if size := sample_size(len(flow.texts)):
        sizes["quadratic measures"] = size
    return sizes

"""Measures of trajectories: movement, cosines and ranks at every step of the sampler."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.flow import Flow
from analysis.measures.gap import gap_measures
from dits.common.errors import InputError
from dits.evaluation.metrics import Metrics, metrics_of, ranks_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of path measures over the texts, in figures and reports."""

MAX_QUERIES = 5000
"""Maximum number of texts for ranking and path measures. It is lower if there are more than 20,000 videos, so that a
step needs at most 10^8 scores."""

_MAX_SCORES = 10**8
_BLOCK_SCORES = 2**24  # 64 MB in float32

PATH_MEASURES = {
    "step_length": "Distance between unit vectors from the previous point: 0 at the first.",
    "cosine_to_start": "Cosine with the text's own embedding: 1 at the text.",
    "cosine_to_target": "Cosine with the text's own video.",
    "cosine_to_distractor": "Cosine with the nearest other video at this step.",
    "gap_closed": "Share of the distance to the own video that is closed: 0 at the text, 1 at the video, below 0 if "
    "the point has moved away.",
    "rank": "The own video's rank among all videos, from 1, by the method's own scores.",
}
"""The measures of `path_measures`, with their descriptions."""


@dataclass(frozen=True)
class StepReport:
    """Results at one step of all trajectories.

    Attributes:
        step: counted from 0, the start: the text, or noise under some methods.
        timestep: i, from T' (the start) down to 0 (the aligned embedding).
        gap: all of `analysis.measures.gap.MEASURES`, between this step's points and the texts' videos.
        t2v: text-to-video metrics of this step's points as queries.
    """

    step: int
    timestep: int
    gap: dict[str, float]
    t2v: Metrics


def sample_texts(flow: Flow, seed: int = 0) -> Flow:
    """The flow of the texts for ranking and path measures: all, or a random sample (see MAX_QUERIES)."""
    maximum = max(1, min(MAX_QUERIES, _MAX_SCORES // len(flow.videos)))
    if len(flow.texts) <= maximum:
        return flow
    chosen = np.random.default_rng(seed).choice(len(flow.texts), maximum, replace=False)
    return flow.select_texts(np.sort(chosen))


def step_reports(flow: Flow, paths: dict[str, np.ndarray] | None = None) -> list[StepReport]:
    """A report for each of the S points of the trajectories.

    Args:
        flow: the texts and videos.
        paths: the `path_measures` of `sample_texts(flow)`, if they are computed already.

    Raises:
        InputError: the embeddings cannot be measured (see `gap_measures`).
    """
    paths = paths or path_measures(sample_texts(flow))
    return [
        StepReport(
            step=step,
            timestep=timestep,
            gap=gap_measures(flow.points[step], flow.own_videos),
            t2v=metrics_of(paths["rank"][step]),
        )
        for step, timestep in enumerate(flow.timesteps)
    ]


@torch.inference_mode()
def path_measures(flow: Flow) -> dict[str, np.ndarray]:
    """All of PATH_MEASURES as (S, N), one column a trajectory.

    With a single video there is no distractor, and its cosine is NaN.
    """
    measured = [_path_measures(block) for block in _blocks(flow)]
    return {name: np.concatenate([columns[name] for columns in measured], axis=1) for name in PATH_MEASURES}


def bands(values: np.ndarray) -> np.ndarray:
    """Quantiles (S, 5) of a path measure (S, N) over the texts, one column for each of QUANTILES."""
    return np.quantile(values, QUANTILES, axis=1).T


@torch.inference_mode()
def ranks_at(flow: Flow, step: int) -> np.ndarray:
    """The rank (N,) of each text's own video at one step, from 1; tied videos share the mean of their ranks."""
    return np.concatenate([ranks_of(block.scores_at(step), block.video_of) for block in _blocks(flow)])


@torch.inference_mode()
def ranks_by_step(flow: Flow, text: int) -> np.ndarray:
    """Ranks (S, V) of all videos, from 1, at each step of one text's trajectory. Ties follow the videos' order.

    Raises:
        InputError: there is no such text.
    """
    if not 0 <= text < len(flow.texts):
        raise InputError(f"There is no text {text}: the flow has {len(flow.texts)}, counted from 0.")
    one = flow.select_texts(np.array([text]))
    scores = np.concatenate([one.scores_at(step) for step in range(len(one.points))])
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) + 1


def trajectory_of(flow: Flow, text: int, top: int) -> dict[str, Any]:
    """One text's trajectory as JSON values.

    `steps` has the PATH_MEASURES of each point, from the start to v_0. `videos` has the id and the ranks at every step
    of each video that is among the first `top` at any step, in the order of the last step.

    Raises:
        InputError: there is no such text.
    """
    ranks = ranks_by_step(flow, text)
    measured = path_measures(flow.select_texts(np.array([text])))
    leading = [video for video in np.argsort(ranks[-1]).tolist() if ranks[:, video].min() <= top]
    return {
        "steps": [
            {"step": step, "timestep": timestep} | {name: float(values[step, 0]) for name, values in measured.items()}
            for step, timestep in enumerate(flow.timesteps)
        ],
        "videos": [{"id": flow.video_ids[video], "ranks": ranks[:, video].tolist()} for video in leading],
    }


def largest_step_share(points: Tensor) -> np.ndarray:
    """The share (N,) of the longest step in the length of each trajectory of points (S, N, d), between unit vectors.

    The share is 0 if the points do not move.
    """
    lengths = F.normalize(points, dim=-1).diff(dim=0).norm(dim=-1)
    if not len(lengths):
        return np.zeros(points.shape[1])
    return (lengths.amax(dim=0) / lengths.sum(dim=0).clamp_min(1e-12)).numpy()


def _path_measures(flow: Flow) -> dict[str, np.ndarray]:
    start, target = F.normalize(flow.queries, dim=-1), F.normalize(flow.own_videos, dim=-1)
    videos = F.normalize(flow.videos, dim=-1)
    distance = (target - start).norm(dim=-1).clamp_min(1e-12)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in PATH_MEASURES}
    previous = F.normalize(flow.points[0], dim=-1)
    for step, raw in enumerate(flow.points):
        point = F.normalize(raw, dim=-1)
        values = {
            "step_length": (point - previous).norm(dim=-1),
            "cosine_to_start": (point * start).sum(dim=-1),
            "cosine_to_target": (point * target).sum(dim=-1),
            "cosine_to_distractor": _best_other(point @ videos.T, flow.video_of),
            "gap_closed": 1 - (target - point).norm(dim=-1) / distance,
        }
        for name, column in values.items():
            rows[name].append(column.numpy())
        rows["rank"].append(ranks_of(flow.scores_at(step), flow.video_of))
        previous = point
    return {name: np.stack(values) for name, values in rows.items()}


def _blocks(flow: Flow) -> Iterator[Flow]:
    """The flow in blocks of texts, so that the scores of a block with all videos fit in memory."""
    size = max(1, _BLOCK_SCORES // len(flow.videos))
    for start in range(0, len(flow.texts), size):
        yield flow.select_texts(np.arange(start, min(start + size, len(flow.texts))))


def _best_other(cosines: Tensor, video_of: np.ndarray) -> Tensor:
    """The highest cosine (N,) in each row, without the text's own video."""
    if cosines.shape[1] < 2:
        return torch.full((len(cosines),), torch.nan)
    others = cosines.clone()
    others[torch.arange(len(cosines)), torch.from_numpy(video_of)] = -torch.inf
    return others.amax(dim=1)

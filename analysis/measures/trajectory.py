"""What every step of the sampler does to sentences: how far they move, towards what, and who overtakes whom."""

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
"""The bands that curves over many texts are drawn with."""

MAX_QUERIES = 5000
"""How many texts at most are ranked against all videos and followed step by step; fewer where there are more than
20,000 videos, so that no step takes more than 10^8 scores."""

_MAX_SCORES = 10**8

_SCORES_AT_ONCE = 2**24  # 64 MB in float32

PATH_MEASURES = {
    "step_length": "Distance on the unit sphere from the point before: 0 at the first.",
    "cosine_to_start": "Cosine with the text's own embedding: 1 where nothing has moved yet.",
    "cosine_to_target": "Cosine with the text's own video.",
    "cosine_to_distractor": "Cosine with whichever other video is nearest at this step.",
    "gap_closed": "Share of the distance to the own video that is gone: 0 at the text, 1 at the video, below 0 where "
    "the point has moved away.",
    "rank": "The own video's place among all videos, from 1, by the method's own scores.",
}
"""What `path_measures` measures at every step of every text's way, and how to read it."""


@dataclass(frozen=True)
class StepReport:
    """All texts at one point of their way.

    Attributes:
        step: counted from 0, the text itself.
        timestep: i, from T' (the text itself) down to 0 (the aligned embedding).
        gap: every one of `analysis.measures.gap.MEASURES`, to the vectors that stand for the texts' videos.
        t2v: text-to-video metrics when this point stands for the text.
    """

    step: int
    timestep: int
    gap: dict[str, float]
    t2v: Metrics


def followed(flow: Flow, seed: int = 0) -> Flow:
    """The texts that are ranked and followed step by step: all, or a random sample (see MAX_QUERIES)."""
    most = max(1, min(MAX_QUERIES, _MAX_SCORES // len(flow.videos)))
    if len(flow.texts) <= most:
        return flow
    chosen = np.random.default_rng(seed).choice(len(flow.texts), most, replace=False)
    return flow.of_texts(np.sort(chosen))


def step_reports(flow: Flow, paths: dict[str, np.ndarray] | None = None) -> list[StepReport]:
    """A report for each of the S points of the texts' way.

    Args:
        flow: the texts and videos.
        paths: what `path_measures` says of the texts that are `followed`, where it is known already.

    Raises:
        InputError: the embeddings cannot be measured (see `gap_measures`).
    """
    paths = paths or path_measures(followed(flow))
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
    """Every one of PATH_MEASURES as (S, N): one column for each text's way.

    With a single video there is no distractor, and its cosine is not a number.
    """
    measured = [_path_measures(block) for block in _blocks(flow)]
    return {name: np.concatenate([columns[name] for columns in measured], axis=1) for name in PATH_MEASURES}


def bands(values: np.ndarray) -> np.ndarray:
    """Quantiles (S, 5) over the texts of a path measure (S, N), one column for each of QUANTILES."""
    return np.quantile(values, QUANTILES, axis=1).T


@torch.inference_mode()
def ranks_at(flow: Flow, step: int) -> np.ndarray:
    """The rank (N,) of each text's own video at one step, from 1; tied videos share the mean of their ranks."""
    return np.concatenate([ranks_of(block.scores_at(step), block.video_of) for block in _blocks(flow)])


@torch.inference_mode()
def ranks_by_step(flow: Flow, text: int) -> np.ndarray:
    """Every video's place (S, V), from 1, at each step of one text's way: a bump chart. Ties go by the videos' order.

    Raises:
        InputError: there is no such text.
    """
    if not 0 <= text < len(flow.texts):
        raise InputError(f"There is no text {text}: the flow has {len(flow.texts)}, counted from 0.")
    one = flow.of_texts(np.array([text]))
    scores = np.concatenate([one.scores_at(step) for step in range(len(one.points))])
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) + 1


def trajectory_of(flow: Flow, text: int, top: int) -> dict[str, Any]:
    """One text's way as JSON values.

    `steps` has one entry for each point, the text itself being the first and v_0 the last, with what PATH_MEASURES
    names; `videos` the ids of those that are among the first `top` at any step, in the order of the last, with their
    places at every step.

    Raises:
        InputError: there is no such text.
    """
    ranks = ranks_by_step(flow, text)
    measured = path_measures(flow.of_texts(np.array([text])))
    leading = [video for video in np.argsort(ranks[-1]).tolist() if ranks[:, video].min() <= top]
    return {
        "steps": [
            {"step": step, "timestep": timestep} | {name: float(values[step, 0]) for name, values in measured.items()}
            for step, timestep in enumerate(flow.timesteps)
        ],
        "videos": [{"id": flow.video_ids[video], "ranks": ranks[:, video].tolist()} for video in leading],
    }


def largest_step_share(points: Tensor) -> np.ndarray:
    """The share (N,) of each path's length that lies in its longest step, on the unit sphere: points (S, N, d).

    A path without length has a share of 0.
    """
    lengths = F.normalize(points, dim=-1).diff(dim=0).norm(dim=-1)
    if not len(lengths):
        return np.zeros(points.shape[1])
    return (lengths.amax(dim=0) / lengths.sum(dim=0).clamp_min(1e-12)).numpy()


def _path_measures(flow: Flow) -> dict[str, np.ndarray]:
    start, target = F.normalize(flow.queries, dim=-1), F.normalize(flow.own_videos, dim=-1)
    videos = F.normalize(flow.videos, dim=-1)
    width = (target - start).norm(dim=-1).clamp_min(1e-12)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in PATH_MEASURES}
    before = F.normalize(flow.points[0], dim=-1)
    for step, raw in enumerate(flow.points):
        point = F.normalize(raw, dim=-1)
        values = {
            "step_length": (point - before).norm(dim=-1),
            "cosine_to_start": (point * start).sum(dim=-1),
            "cosine_to_target": (point * target).sum(dim=-1),
            "cosine_to_distractor": _best_other(point @ videos.T, flow.video_of),
            "gap_closed": 1 - (target - point).norm(dim=-1) / width,
        }
        for name, column in values.items():
            rows[name].append(column.numpy())
        rows["rank"].append(ranks_of(flow.scores_at(step), flow.video_of))
        before = point
    return {name: np.stack(values) for name, values in rows.items()}


def _blocks(flow: Flow) -> Iterator[Flow]:
    """The flow in blocks of texts whose scores of all videos fit in the memory."""
    at_once = max(1, _SCORES_AT_ONCE // len(flow.videos))
    for start in range(0, len(flow.texts), at_once):
        yield flow.of_texts(np.arange(start, min(start + at_once, len(flow.texts))))


def _best_other(cosines: Tensor, video_of: np.ndarray) -> Tensor:
    """The highest cosine (N,) of each row with another video than its own."""
    if cosines.shape[1] < 2:
        return torch.full((len(cosines),), torch.nan)
    others = cosines.clone()
    others[torch.arange(len(cosines)), torch.from_numpy(video_of)] = -torch.inf
    return others.amax(dim=1)

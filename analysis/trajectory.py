"""What every step of the sampler does to a corpus's sentences: the gap that is left, and the retrieval it gives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.gap import GapMeasures, gap_measures
from dits.evaluation import Metrics, metrics_of, ranks_of
from dits.model import RetrievalModel
from dits.pooling import mean_pool
from dits.scoring import ExactScorer


@dataclass(frozen=True)
class StepReport:
    """The state at one point of the trajectory.

    Attributes:
        timestep: i, from T' (the text itself) down to 0 (the aligned embedding).
        gap: to the mean of the video's frames, which no text has touched.
        step_length: mean distance from the point before; 0 at the start.
        retrieval: text-to-video metrics when this point stands for the text in the cosine.
    """

    timestep: int
    gap: GapMeasures
    step_length: float
    retrieval: Metrics


@torch.inference_mode()
def step_reports(model: RetrievalModel, texts: Tensor, frames: Tensor, video_of: np.ndarray) -> list[StepReport]:
    """A report for each of the T' + 1 points of texts (N, d), whose videos are `frames[video_of]`, frames (V, F, d).

    Videos are pooled by the original text at every step, as retrieval does, so that the steps differ in the text alone.
    """
    points = model.trajectory(texts)
    videos = mean_pool(frames)[torch.from_numpy(video_of)]
    scores = _scorer(model, texts, frames)
    lengths = [0.0] + [float(step.norm(dim=-1).mean()) for step in points.diff(dim=0)]
    return [
        StepReport(
            timestep=len(points) - 1 - index,
            gap=gap_measures(point, videos),
            step_length=lengths[index],
            retrieval=metrics_of(ranks_of(scores(point), video_of)),
        )
        for index, point in enumerate(points)
    ]


def _scorer(model: RetrievalModel, texts: Tensor, frames: Tensor) -> Callable[[Tensor], np.ndarray]:
    """Scores any point of the texts' trajectory against all videos, which are prepared once."""
    if model.pooling is None:
        videos = mean_pool(frames)
        return lambda point: (F.normalize(point, dim=-1) @ videos.T).numpy()
    scorer = ExactScorer(model.pooling)
    prepared = scorer.prepare(frames)
    return lambda point: scorer.scores(texts, point, prepared).numpy()

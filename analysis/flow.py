"""The data of an analysis: the trajectories of texts, their videos, and the scores between both."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.common.errors import InputError, require
from dits.models.pooling import mean_pool
from dits.models.retrieval import METHODS, RetrievalModel
from dits.scoring.exact import ExactScorer

VIDEO_SIDES = ("mean", "pooled")
"""Video vectors for the gap measures: the mean of a video's frames, or its frames pooled by its own text. The pooled
vector is closer to that text by construction."""

Scores = Callable[[Tensor, Tensor], np.ndarray]
"""Maps texts (N, d) and their trajectory points (N, d) to the points' cosines (N, V) with all videos. Some methods pool
the videos by the texts."""

_SAME_DIRECTION = 1e-5  # tolerance for a cosine of 1 in single precision


@dataclass(frozen=True)
class Flow:
    """N texts with trajectories of S points, and V videos.

    Attributes:
        name: the corpus or file.
        split: the split of the corpus, or "all".
        method: the alignment method.
        queries: (N, d) text embeddings. Some methods pool the videos by them.
        points: (S, N, d) trajectories, unnormalised, from their first point to the aligned embedding v_0. The first
            point is the text, except under methods that start at noise.
        videos: (V, d) the mean of each video's unit frames.
        video_of: (N,) index of each text's video.
        own_videos: (N, d) each text's video as the gap measures use it.
        video_side: the kind of `own_videos`, one of VIDEO_SIDES; "given" if videos are single vectors without frames.
        texts: (N) sentences.
        video_ids: (V) ids.
        scores: computes the scores of any trajectory point with all videos.
    """

    name: str
    split: str
    method: str
    queries: Tensor
    points: Tensor
    videos: Tensor
    video_of: np.ndarray
    own_videos: Tensor
    video_side: str
    texts: tuple[str, ...]
    video_ids: tuple[str, ...]
    scores: Scores

    @property
    def timesteps(self) -> list[int]:
        """The timestep of each point: from S - 1 (the start) down to 0 (v_0)."""
        return list(range(len(self.points) - 1, -1, -1))

    def scores_at(self, step: int) -> np.ndarray:
        """Cosines (N, V) of the trajectory points at one step, counted from 0, with all videos."""
        return self.scores(self.queries, self.points[step])

    def select_texts(self, index: np.ndarray) -> "Flow":
        """The flow of the texts with these indices, and of all videos."""
        rows = torch.from_numpy(index)
        return replace(
            self,
            queries=self.queries[rows],
            points=self.points[:, rows],
            video_of=self.video_of[index],
            own_videos=self.own_videos[rows],
            texts=tuple(self.texts[i] for i in index),
        )

    def with_videos(self, video_of: np.ndarray) -> "Flow":
        """The flow with other videos (N,) for its texts, each represented by the mean of its frames."""
        own = self.videos[torch.from_numpy(video_of)]
        return replace(self, video_of=video_of, own_videos=own, video_side="mean")

    def starting_at_text(self) -> "Flow":
        """The flow itself if all trajectories start in the direction of their text; else with the texts prepended."""
        start_cosines = F.cosine_similarity(self.points[0], self.queries, dim=-1)
        if bool((start_cosines > 1 - _SAME_DIRECTION).all()):
            return self
        return self.with_points(torch.cat([self.queries[None], self.points]))

    def with_points(self, points: Tensor, method: str | None = None) -> "Flow":
        """The flow with other trajectories (S, N, d), optionally under another method's name."""
        return replace(self, points=points, method=method or self.method)


@torch.inference_mode()
def flow_of(
    model: RetrievalModel,
    texts: Tensor,
    frames: Tensor,
    video_of: np.ndarray,
    *,
    name: str = "",
    split: str = "all",
    method: str = "",
    captions: tuple[str, ...] = (),
    video_ids: tuple[str, ...] = (),
    video_side: str = "mean",
) -> Flow:
    """The flow of texts (N, d) under a trained model; text i belongs to `frames[video_of[i]]`, frames are (V, F, d).

    The original text pools the videos at every step, as in retrieval, so only the text side changes between steps.

    Raises:
        InputError: the method moves pairs, so a text alone has no trajectory; or the video side is unknown.
    """
    if video_side not in VIDEO_SIDES:
        raise InputError(f"The video side is one of {', '.join(VIDEO_SIDES)}, not '{video_side}'.")
    videos = mean_pool(frames)
    own = torch.from_numpy(video_of)
    return Flow(
        name=name,
        split=split,
        method=method or model.config.method,
        queries=texts,
        points=model.trajectory(texts),
        videos=videos,
        video_of=video_of,
        own_videos=videos[own] if video_side == "mean" else model.own_videos(texts, frames[own]),
        video_side=video_side,
        texts=captions or tuple(f"text {index}" for index in range(len(texts))),
        video_ids=video_ids or tuple(f"video {index}" for index in range(len(frames))),
        scores=scores_of(model, frames),
    )


def scores_of(model: RetrievalModel, frames: Tensor) -> Scores:
    """The scores of any trajectory point with videos (V, F, d), which are prepared once."""
    if model.pooling is None:
        return cosine_scores(mean_pool(frames))
    scorer = ExactScorer(model.pooling)
    prepared = scorer.prepare(frames)
    by_point = model.config.pooling.attend_with == "aligned"
    return lambda texts, points: scorer.scores(points if by_point else texts, points, prepared).numpy()


def cosine_scores(videos: Tensor) -> Scores:
    """Scores by the cosine with one vector a video (V, d)."""
    unit = F.normalize(videos, dim=-1)
    return lambda _, points: (F.normalize(points, dim=-1) @ unit.T).numpy()


def with_sampling(
    model: RetrievalModel, steps: int | None = None, noise: float | None = None, seed: int | None = None
) -> RetrievalModel:
    """The model with the same weights and other inference settings of its sampler.

    The settings are T', the noise scale and the seed; None keeps a setting. A DITS network has the timestep as an
    input, so it runs at any T', though it was trained at one. A diffusion model has no noise scale, and its T is fixed.

    Raises:
        InputError: the method has no such setting, or a value is out of range.
    """
    require(noise is None or math.isfinite(noise), f"The noise scale must be a finite number, not {noise}.")
    if (steps, noise, seed) == (None, None, None):
        return model
    config = model.config
    if config.method == "dits":
        values: dict[str, Any] = {"steps": steps, "inference_noise_scale": noise, "inference_seed": seed}
        sampler = replace(config.sampler, **{key: value for key, value in values.items() if value is not None})
        changed = replace(config, sampler=sampler)
    elif config.method in ("diffusion", "prior") and steps is None and noise is None:
        seeded = replace(getattr(config, config.method), inference_seed=seed)
        changed = replace(config, **{config.method: seeded})
    else:
        raise InputError(f"{METHODS[config.method].title} has no T' or noise to choose at inference.")
    if changed == config:
        return model
    other = RetrievalModel(changed)
    other.load_state_dict(model.state_dict())
    return other.to(model.logit_scale.device).eval()

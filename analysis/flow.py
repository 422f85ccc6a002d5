"""What is analysed: texts at every step of their way, their videos, and how a point of the way ranks the videos."""

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
from dits.models.retrieval import METHODS, ModelConfig, RetrievalModel
from dits.scoring.exact import ExactScorer

VIDEO_SIDES = ("mean", "pooled")
"""What stands for a video when the gap is measured: the mean of its frames, or the frames as its own text pools them,
which looks closer to that text by construction."""

Scores = Callable[[Tensor, Tensor], np.ndarray]
"""From texts (N, d) and their points (N, d): the points' cosines (N, V) with all videos, pooled by the texts where a
method does so."""


_SAME_DIRECTION = 1e-5  # by which a cosine of single precision may be below 1


@dataclass(frozen=True)
class Flow:
    """N texts, on their way of S points, and V videos.

    Attributes:
        name: of the corpus or file.
        split: of the corpus; "all" where there are none.
        method: what moved the texts.
        queries: (N, d) the texts' own embeddings, which pool the videos where a method does so.
        points: (S, N, d) from where the way begins to the aligned embedding v_0, as the model has them: the text itself
            comes first, but under methods that start at noise.
        videos: (V, d) one vector each, the mean of unit frames.
        video_of: (N,) each text's video.
        own_videos: (N, d) the vector that stands for each text's video when the gap is measured.
        video_side: which one that is, of VIDEO_SIDES; "given" where there is one vector a video, and no frames.
        texts: (N) the sentences.
        video_ids: (V) the videos' names.
        scores: what ranks the videos at any point.
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
        """The timestep of each point: from S - 1 (the text) down to 0 (v_0)."""
        return list(range(len(self.points) - 1, -1, -1))

    def scores_at(self, step: int) -> np.ndarray:
        """Cosines (N, V) of the texts' points at one step, counted from 0, with all videos."""
        return self.scores(self.queries, self.points[step])

    def of_texts(self, index: np.ndarray) -> "Flow":
        """Some of the texts, by their indices, with all videos."""
        rows = torch.from_numpy(index)
        return replace(
            self,
            queries=self.queries[rows],
            points=self.points[:, rows],
            video_of=self.video_of[index],
            own_videos=self.own_videos[rows],
            texts=tuple(self.texts[i] for i in index),
        )

    def to_videos(self, video_of: np.ndarray) -> "Flow":
        """The same texts, each with another video (N,), which stands as the mean of its frames."""
        own = self.videos[torch.from_numpy(video_of)]
        return replace(self, video_of=video_of, own_videos=own, video_side="mean")

    def from_text(self) -> "Flow":
        """The same way with the text before it, where it begins elsewhere; the text at another length is the text."""
        begins = F.cosine_similarity(self.points[0], self.queries, dim=-1)
        if bool((begins > 1 - _SAME_DIRECTION).all()):
            return self
        return self.moved(torch.cat([self.queries[None], self.points]))

    def moved(self, points: Tensor, method: str | None = None) -> "Flow":
        """The same texts and videos with other points (S, N, d) and, where it is given, another method's name."""
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
    """The flow of texts (N, d), whose videos are `frames[video_of]`, frames (V, F, d), under a trained model.

    Videos are pooled by the original text at every step, as retrieval does, so that the steps differ in the text alone.

    Raises:
        InputError: the method moves pairs, so that a text alone has no way; or the video side is unknown.
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
    """What scores any point of a text's way against videos (V, F, d), which are prepared once."""
    if model.pooling is None:
        return cosine_scores(mean_pool(frames))
    scorer = ExactScorer(model.pooling)
    prepared = scorer.prepare(frames)
    by_point = model.config.pooling.attend_with == "aligned"
    return lambda texts, points: scorer.scores(points if by_point else texts, points, prepared).numpy()


def cosine_scores(videos: Tensor) -> Scores:
    """Scores by the cosine with one vector per video (V, d)."""
    unit = F.normalize(videos, dim=-1)
    return lambda _, points: (F.normalize(points, dim=-1) @ unit.T).numpy()


def with_sampling(
    model: RetrievalModel, steps: int | None = None, noise: float | None = None, seed: int | None = None
) -> RetrievalModel:
    """The model with other settings of its sampler at inference: T', the noise scale, the seed; None leaves them.

    The weights stay those trained. A DITS network is told the timestep, so it runs at any T', though it was trained at
    one. For a diffusion model `noise` has no meaning and its T is fixed.

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
        drawn = replace(getattr(config, config.method), inference_seed=seed)
        changed = replace(config, **{config.method: drawn})
    else:
        raise InputError(f"{METHODS[config.method].title} has no T' or noise to choose at inference.")
    return model if changed == config else _same_weights(model, changed)


def _same_weights(model: RetrievalModel, config: ModelConfig) -> RetrievalModel:
    other = RetrievalModel(config)
    other.load_state_dict(model.state_dict())
    return other.to(model.logit_scale.device).eval()

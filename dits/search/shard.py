"""One part of an index on one of several machines: it ranks what it holds, and says how its scores are spread."""

import os
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dits.corpora.corpus import Clip
from dits.index.snapshot import open_snapshot
from dits.index.store import VideoIndex
from dits.models.alignment import Alignment
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery, derive
from dits.search.results import FrameWeight


@dataclass(frozen=True)
class ShardPlan:
    """What a shard needs to know.

    Attributes:
        location: of the index.
        encoder: its id; what a shard ranks for is embedded elsewhere.
        version: of the index: the same for all shards, so that they hold every row once.
        part, parts: which part, as `dits.index.snapshot.cut` cuts them: consecutive rows in the order of their ids.
        weights: names what is derived under the model.
    """

    location: str
    encoder: str
    version: int
    part: int
    parts: int
    weights: str


@dataclass(frozen=True)
class Found:
    """A video that a shard ranks high; see `dits.search.engine.Hit`."""

    score: float
    clip: Clip
    frames: tuple[FrameWeight, ...]
    best_moment: float


@dataclass(frozen=True)
class Answer:
    """What a shard says to a query.

    Attributes:
        rows: how many videos it scored.
        found: its best ones, best first.
        mean, deviation, lowest, highest: of all its scores, see `dits.scoring.ranking.TopVideos`.
    """

    rows: int
    found: tuple[Found, ...] = ()
    mean: float = 0.0
    deviation: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0


class Shard:
    """A part of an index in memory, or on the GPU, ready for queries under a model that `for_shards` made.

    It computes on all cores of its machine.

    Raises:
        DitsError: the index cannot be read here, or the cache folder cannot be written.
    """

    def __init__(self, plan: ShardPlan, model: RetrievalModel) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        index = VideoIndex.open_at(plan.location, plan.encoder, plan.version)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._snapshot = open_snapshot(index, (plan.part, plan.parts))
        derived = self._snapshot.derived(plan.weights, partial(derive, self._model))
        self._gallery = build_gallery(self._model, self._snapshot.frames, derived)
        if len(self._snapshot):  # what is compiled or loaded at the first query is not to wait for that
            some = torch.ones(1, index.dim)
            self.answer(some, some, 1)

    def __len__(self) -> int:
        return len(self._snapshot)

    def answer(self, text: Tensor, aligned: Tensor | None, k: int) -> Answer:
        """The k best of the shard's videos for a text.

        Args:
            text: (1, d) as the encoder gives it.
            aligned: (1, d) what stands for it in the cosine; None under methods that move every pair.
        """
        if not len(self._snapshot):
            return Answer(0)
        if isinstance(self._model.alignment, AlignedElsewhere):
            assert aligned is not None
            self._model.alignment.aligned = aligned
        top = self._gallery.top(text, k)
        rows, times = top.rows[0], self._snapshot.times
        weights = self._gallery.frame_weights(text[0], rows)
        moments = self._gallery.best_frames(text[0], rows, weights)
        found = tuple(
            Found(
                score=float(score),
                clip=self._snapshot.clips[row],
                frames=tuple(
                    FrameWeight(round(float(t), 3), float(w)) for t, w in zip(times[row], of_frames, strict=True)
                ),
                best_moment=round(float(times[row, moment]), 3),
            )
            for score, row, of_frames, moment in zip(top.scores[0], rows.tolist(), weights, moments, strict=True)
        )
        ends = (float(values[0]) for values in (top.mean, top.deviation, top.lowest, top.highest))
        return Answer(len(self), found, *ends)


class AlignedElsewhere(Alignment):
    """Gives what was aligned by whoever asks: one computation for all shards, and no network to send to them."""

    aligned: Tensor

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What was given, wherever the text is."""
        return self.aligned.to(text.device)


def for_shards(model: RetrievalModel) -> RetrievalModel:
    """A copy of what shards need of a model, on the CPU: all of it under methods that move every pair, else the pooling
    alone.
    """
    if model.alignment.pairwise:
        return deepcopy(model).cpu()
    config = model.config.pooling
    sent = RetrievalModel(ModelConfig("mean" if model.pooling is None else "xpool", pooling=config))
    sent.pooling, sent.alignment = deepcopy(model.pooling), AlignedElsewhere()
    return sent.cpu().eval()

"""A shard: one of the parts of an index that several machines search."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dits.common.processes import cpu_cores
from dits.corpora.corpus import Clip
from dits.index.snapshot import open_snapshot
from dits.index.store import VideoIndex
from dits.models.alignment import Alignment
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery, derive
from dits.search.results import FrameWeight


@dataclass(frozen=True)
class ShardPlan:
    """The part of an index that a shard searches.

    Attributes:
        location: folder or URL of the index.
        encoder: id of the encoder; queries are embedded by the driver.
        version: version of the index, the same for all shards, so that every row is in one shard.
        part, parts: index of the part and number of parts, see `dits.index.snapshot.shard_bounds`.
        weights: `dits.search.methods.weights_name` of the model.
    """

    location: str
    encoder: str
    version: int
    part: int
    parts: int
    weights: str


@dataclass(frozen=True)
class ShardHit:
    """One result of a shard; see `dits.search.results.Hit`."""

    score: float
    clip: Clip
    frames: tuple[FrameWeight, ...]
    best_moment: float


@dataclass(frozen=True)
class ShardResult:
    """The results of a query in one shard.

    Attributes:
        rows: number of videos that were scored.
        hits: the best videos, best first.
        mean, deviation, lowest, highest: statistics of all scores, see `dits.scoring.ranking.TopVideos`.
    """

    rows: int
    hits: tuple[ShardHit, ...] = ()
    mean: float = 0.0
    deviation: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0


class Shard:
    """A part of an index in memory or on the GPU, searched with a model from `model_for_shards`.

    It computes on all cores of its machine.

    Raises:
        DitsError: the index cannot be read here, or the cache folder cannot be written.
    """

    def __init__(self, plan: ShardPlan, model: RetrievalModel) -> None:
        torch.set_num_threads(cpu_cores())
        index = VideoIndex.open_at(plan.location, plan.encoder, plan.version)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._snapshot = open_snapshot(index, (plan.part, plan.parts))
        derived = self._snapshot.derived(plan.weights, partial(derive, self._model))
        self._gallery = build_gallery(self._model, self._snapshot.frames, derived)
        if len(self._snapshot):  # the first query compiles and loads code: not a query of the user
            dummy = torch.ones(1, index.dim)
            self.search(dummy, dummy, 1)

    def __len__(self) -> int:
        return len(self._snapshot)

    def search(self, text: Tensor, aligned: Tensor | None, k: int) -> ShardResult:
        """The k best videos of the shard for the encoder's text (1, d); `aligned` (1, d) is None if pairwise."""
        if not len(self._snapshot):
            return ShardResult(0)
        if isinstance(self._model.alignment, PrecomputedAlignment):
            assert aligned is not None
            self._model.alignment.aligned = aligned
        top = self._gallery.top(text, k)
        rows, times = top.rows[0], self._snapshot.times
        weights = self._gallery.frame_weights(text[0], rows)
        moments = self._gallery.best_frames(text[0], rows, weights)
        hits = tuple(
            ShardHit(
                score=float(score),
                clip=self._snapshot.clips[row],
                frames=tuple(
                    FrameWeight(round(float(t), 3), float(w)) for t, w in zip(times[row], frame_weights, strict=True)
                ),
                best_moment=round(float(times[row, moment]), 3),
            )
            for score, row, frame_weights, moment in zip(top.scores[0], rows.tolist(), weights, moments, strict=True)
        )
        statistics = (float(values[0]) for values in (top.mean, top.deviation, top.lowest, top.highest))
        return ShardResult(len(self), hits, *statistics)


class PrecomputedAlignment(Alignment):
    """Returns the embeddings that the driver has aligned: once for all shards, which need no alignment network."""

    aligned: Tensor

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The precomputed embeddings, on the device of the text."""
        return self.aligned.to(text.device)


def model_for_shards(model: RetrievalModel) -> RetrievalModel:
    """A copy on the CPU of the parts of a model that shards need: all under pairwise methods, else only the pooling."""
    if model.alignment.pairwise:
        return deepcopy(model).cpu()
    method = "mean" if model.pooling is None else "xpool"
    copy = RetrievalModel(ModelConfig(method, pooling=model.config.pooling))
    copy.pooling, copy.alignment = deepcopy(model.pooling), PrecomputedAlignment()
    return copy.cpu().eval()

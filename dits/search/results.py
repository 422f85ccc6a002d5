"""The results of a search."""

from dataclasses import dataclass
from typing import Any

from dits.corpora.corpus import Clip


@dataclass(frozen=True)
class FrameWeight:
    """A sampled frame: its time in seconds, and its weight in the pooling (the weights of a video sum to 1)."""

    time: float
    weight: float


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: rank of the video, from 1.
        clip: the video.
        score: cosine of the aligned text and the pooled video.
        deviations: the score minus the mean of the query's scores in the whole gallery, in standard deviations.
        frames: the sampled frames with their weights.
        best_moment: time of the best frame in seconds: the frame with the highest weight in X-Pool, or under mean
            pooling, in which all weights are equal, the frame nearest to the text.
        ranks: rank of the video under every loaded method.
    """

    rank: int
    clip: Clip
    score: float
    deviations: float
    frames: tuple[FrameWeight, ...]
    best_moment: float
    ranks: dict[str, int]


@dataclass(frozen=True)
class SearchResult:
    """A ranking.

    Attributes:
        query: the text that was encoded.
        encoder: id of the encoder.
        method: name of the method.
        hits: the best videos, best first.
        spread: lowest, mean and highest of the query's scores in the whole gallery.
        notice: a sentence if the query was cut, or at least half of its tokens are unknown to the encoder.
        exact: whether all videos were scored. If only candidates were, `spread` and the deviations of the hits come
            from a sample of the gallery, and ranks are ranks among the candidates.
        missing: one sentence per shard that did not answer. Nothing above includes the videos of these shards, and
            `exact` is false.
    """

    query: str
    encoder: str
    method: str
    hits: tuple[Hit, ...]
    spread: tuple[float, float, float]
    notice: str | None = None
    exact: bool = True
    missing: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "query": self.query,
            "encoder": self.encoder,
            "method": self.method,
            "notice": self.notice,
            "exact": self.exact,
            "missing": list(self.missing),
            "results": [
                {
                    "rank": hit.rank,
                    "id": hit.clip.id,
                    "score": hit.score,
                    "deviations": hit.deviations,
                    "path": str(hit.clip.path),
                    "start": hit.clip.start,
                    "end": hit.clip.end,
                    "best_moment": hit.best_moment,
                    "frames": [{"time": frame.time, "weight": frame.weight} for frame in hit.frames],
                    "ranks": hit.ranks,
                }
                for hit in self.hits
            ],
        }

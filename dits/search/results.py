"""What a search finds: a ranking, and what each of its scores means."""

from dataclasses import dataclass
from typing import Any

from dits.corpora.corpus import Clip


@dataclass(frozen=True)
class FrameWeight:
    """A sampled frame: when it is shown, in seconds, and how much pooling counts it (the weights sum to 1)."""

    time: float
    weight: float


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: place in the ranking, from 1.
        clip: the video.
        score: cosine between the aligned text and the pooled video.
        deviations: by how many standard deviations the score lies above the mean of this query's scores on the whole
            gallery.
        frames: the sampled frames with their weights.
        best_moment: when the frame is shown that matches best, in seconds: the one that X-Pool counts most, or the one
            nearest to the text under mean pooling, which counts all the same.
        ranks: the clip's rank under every loaded method.
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
        method: what ranked.
        hits: the best videos, best first.
        spread: lowest, mean and highest of this query's scores on the whole gallery.
        notice: one sentence on what became of the query, where not all of it was read.
        exact: whether all videos were scored. Where only candidates were, `spread` and the hits' deviations are those
            of a sample of the gallery, and ranks count among the candidates.
        missing: sentences on parts of the gallery, each on a machine of its own, that did not answer: what they hold
            is in nothing of the above, and `exact` is false.
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

"""Retrieval metrics of a matrix of scores, with support for ties and for any number of captions per video."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from torch import Tensor

from dits.common.errors import InputError, require
from dits.corpora.corpus import Query

RECALLS_AT = (1, 5, 10, 50)
METRIC_NAMES = (*(f"R@{k}" for k in RECALLS_AT), "MdR", "MnR")

PostProcessing = Callable[[np.ndarray], np.ndarray]
"""Maps scores (queries, candidates) to scores of the same shape, in which only the order within a row matters."""


@dataclass(frozen=True)
class Metrics:
    """Retrieval metrics: recall at 1, 5, 10 and 50 in percent; median and mean rank, counted from 1."""

    r1: float
    r5: float
    r10: float
    r50: float
    mdr: float
    mnr: float

    def as_dict(self) -> dict[str, float]:
        """The metrics under their names in papers."""
        return dict(zip(METRIC_NAMES, asdict(self).values(), strict=True))


@dataclass(frozen=True)
class MatchedQueries:
    """Queries whose video is in a gallery, the positions of these videos, and the number of skipped queries."""

    queries: list[Query]
    targets: np.ndarray
    skipped: int


def match_queries(queries: Sequence[Query], gallery: Sequence[str]) -> MatchedQueries:
    """Find the positions of the queries' videos in the gallery; queries for other videos are skipped and counted.

    Raises:
        InputError: the gallery names a video twice, or no query's video is in it.
    """
    position = {video: index for index, video in enumerate(gallery)}
    require(len(position) == len(gallery), "The gallery names a video more than once: it must name every video once.")
    matched = [query for query in queries if query.video_id in position]
    if not matched:
        raise InputError(
            f"None of the {len(queries)} queries belongs to one of the {len(gallery)} videos: check ids and split."
        )
    targets = np.array([position[query.video_id] for query in matched])
    return MatchedQueries(matched, targets, len(queries) - len(matched))


def ranks_of(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The rank (N,) of column `targets[n]` in row n of the scores (N, M), counted from 1.

    With texts in rows and videos in columns this is text-to-video retrieval, and every caption is a query. Tied scores
    get the mean of their ranks, so a constant matrix ranks everything in the middle.

    Raises:
        InputError: a score is not a number.
    """
    require(not np.isnan(scores).any(), "Some scores are not numbers (NaN): the weights or the embeddings are damaged.")
    own = scores[np.arange(len(scores)), targets][:, None]
    above = np.count_nonzero(scores > own, axis=1)
    tied = np.count_nonzero(scores == own, axis=1)
    return above + (tied + 1) / 2


def video_to_text_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The video-to-text rank of every captioned video: the rank of its own captions among the captions of all videos.

    As in X-Pool's evaluation, the captions of each video are reduced to their best score, so that a video is ranked
    first if any of its captions is. Videos without captions are left out.
    """
    captioned, counts = np.unique(targets, return_counts=True)
    grouped = scores[np.argsort(targets, kind="stable")]
    starts = np.cumsum(counts) - counts
    best = np.maximum.reduceat(grouped, starts, axis=0)[:, captioned]  # (groups, videos)
    return ranks_of(best.T, np.arange(len(captioned)))


def metrics_of(ranks: np.ndarray) -> Metrics:
    """Metrics of ranks counted from 1."""
    r1, r5, r10, r50 = (100.0 * float(np.mean(ranks <= k)) for k in RECALLS_AT)
    return Metrics(r1, r5, r10, r50, mdr=float(np.median(ranks)), mnr=float(np.mean(ranks)))


Results = dict[str, dict[str, dict[str, float]]]
"""Metrics by method, direction and name of the metric."""


def mean_and_spread(runs: Sequence[Results]) -> tuple[Results, Results]:
    """The mean and the sample standard deviation (0 for a single run) of the results of several runs."""

    def over_runs(statistic: Callable[[list[float]], float]) -> Results:
        return {
            method: {
                direction: {name: statistic([run[method][direction][name] for run in runs]) for name in metrics}
                for direction, metrics in directions.items()
            }
            for method, directions in runs[0].items()
        }

    return over_runs(fmean), over_runs(lambda values: stdev(values) if len(values) > 1 else 0.0)


def selection_key(record: dict[str, Any]) -> tuple[float, float]:
    """The key for model selection: the sum of the text-to-video recalls at 1, 5 and 10, then the mean rank."""
    t2v = record["t2v"]
    return t2v["R@1"] + t2v["R@5"] + t2v["R@10"], -t2v["MnR"]


def ranks_by_direction(
    scores: Tensor | np.ndarray,
    targets: np.ndarray,
    post_t2v: PostProcessing | None = None,
    post_v2t: PostProcessing | None = None,
) -> dict[str, np.ndarray]:
    """Ranks of scores (texts, videos): "t2v" one per text, "v2t" one per captioned video in the gallery's order.

    Post-processing sees the queries in rows: the scores as they are for "t2v", transposed for "v2t".
    """
    matrix = np.asarray(scores)
    by_text = post_t2v(matrix) if post_t2v else matrix
    by_video = post_v2t(matrix.T).T if post_v2t else matrix
    return {"t2v": ranks_of(by_text, targets), "v2t": video_to_text_ranks(by_video, targets)}


def evaluate_scores(scores: Tensor | np.ndarray, targets: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics of scores (texts, videos) in both directions; `targets` (texts,) are the columns of the texts' videos."""
    ranks = ranks_by_direction(scores, targets)
    return {direction: metrics_of(values).as_dict() for direction, values in ranks.items()}

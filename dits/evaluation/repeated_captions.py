"""Captions that occur more than once among the queries, and the highest R@1 that they allow.

The ceilings hold for methods under which identical texts have identical rankings: all methods except those that draw
noise for each text (`dits.models.alignment.Alignment.is_stochastic`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dits.corpora.corpus import Query


@dataclass(frozen=True)
class RepeatedCaptions:
    """Counts of repeated captions, and ceilings of R@1 in percent if identical texts have identical rankings.

    Attributes:
        queries: number of queries.
        distinct: number of different texts, compared letter by letter.
        repeated: number of queries with the text of an earlier query, of any video.
        t2v_ceiling: highest text-to-video R@1: for every text, only one of its videos is ranked first.
        t2v_tied: text-to-video R@1 if all videos of a text have the same, highest score: several videos of a text get
            the mean of their ranks, which is above 1.
        v2t_ceiling: highest video-to-text R@1: a video that shares all its captions with other videos has, at best,
            a tied first rank.
    """

    queries: int
    distinct: int
    repeated: int
    t2v_ceiling: float
    t2v_tied: float
    v2t_ceiling: float


def repeated_captions(queries: Sequence[Query]) -> RepeatedCaptions:
    """Count the repeated texts of at least one query."""
    videos_of: dict[str, Counter[str]] = {}
    for query in queries:
        videos_of.setdefault(query.caption, Counter())[query.video_id] += 1
    total = len(queries)
    own = {next(iter(videos)) for videos in videos_of.values() if len(videos) == 1}  # videos with a unique text
    return RepeatedCaptions(
        queries=total,
        distinct=len(videos_of),
        repeated=total - len(videos_of),
        t2v_ceiling=100 * sum(max(videos.values()) for videos in videos_of.values()) / total,
        t2v_tied=100 * sum(videos.total() for videos in videos_of.values() if len(videos) == 1) / total,
        v2t_ceiling=100 * len(own) / len({query.video_id for query in queries}),
    )

"""Captions that stand more than once among the queries, and how far they keep retrieval from perfection.

The ceilings bind methods under which identical texts have identical rankings: all but those that draw noise for every
text (`dits.models.alignment.Alignment.draws`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dits.corpora.corpus import Query


@dataclass(frozen=True)
class RepeatedCaptions:
    """Where identical texts have identical rankings, at most one video of theirs can come first for them.

    Attributes:
        queries: how many queries there are.
        distinct: how many different texts they hold, letter by letter.
        repeated: queries whose text an earlier query has, of any video.
        t2v_ceiling: the highest text-to-video R@1 that such scores reach, in percent: for every text, one of its videos
            comes first.
        t2v_tied: text-to-video R@1 in percent when every query's own videos are scored best and alike: the videos of a
            text then share the mean of the ranks they take, which is above 1.
        v2t_ceiling: the highest video-to-text R@1 in percent: a video all of whose captions are other videos' too
            shares its first place at best.
    """

    queries: int
    distinct: int
    repeated: int
    t2v_ceiling: float
    t2v_tied: float
    v2t_ceiling: float


def repeated_captions(queries: Sequence[Query]) -> RepeatedCaptions:
    """Counts the queries' repeated texts; there must be one query at least."""
    videos_of: dict[str, Counter[str]] = {}
    for query in queries:
        videos_of.setdefault(query.caption, Counter())[query.video_id] += 1
    total = len(queries)
    own = {next(iter(videos)) for videos in videos_of.values() if len(videos) == 1}  # have a text to themselves
    return RepeatedCaptions(
        queries=total,
        distinct=len(videos_of),
        repeated=total - len(videos_of),
        t2v_ceiling=100 * sum(max(videos.values()) for videos in videos_of.values()) / total,
        t2v_tied=100 * sum(videos.total() for videos in videos_of.values() if len(videos) == 1) / total,
        v2t_ceiling=100 * len(own) / len({query.video_id for query in queries}),
    )

"""What is said of a few sentences and the videos that they describe: metrics, how sure they are, and every rank."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dits.common.errors import InputError
from dits.corpora.corpus import Query
from dits.evaluation.metrics import match_queries, metrics_of, ranks_both_ways
from dits.evaluation.significance import BootstrapConfig, intervals


def evaluation_report(
    scores: Tensor | np.ndarray, queries: Sequence[Query], gallery: Sequence[str], config: BootstrapConfig | None = None
) -> dict[str, Any]:
    """Scores (queries, videos of the gallery) as JSON values, by direction: t2v and, of two videos or more, v2t.

    `n` counts ranks; `metrics` and `intervals` have the names of `dits.evaluation.metrics.METRIC_NAMES`, and one video
    alone has no intervals; `ranks` are in the order of the queries, or for v2t of the described videos in the gallery.

    Raises:
        InputError: a query's video is not in the gallery, or a score is not a number.
    """
    check_described(queries, gallery)
    targets = match_queries(queries, gallery).targets
    both, videos = ranks_both_ways(scores, targets), {"t2v": targets, "v2t": np.unique(targets)}
    if len(videos["v2t"]) < 2:
        del both["v2t"]
    sure = {
        direction: intervals(ranks, videos[direction], config or BootstrapConfig()) for direction, ranks in both.items()
    }
    asked: dict[str, list[dict[str, str]]] = {
        "t2v": [{"video_id": query.video_id, "caption": query.caption} for query in queries],
        "v2t": [{"video_id": gallery[video]} for video in videos["v2t"]],
    }
    return {
        "n": {direction: len(ranks) for direction, ranks in both.items()},
        "metrics": {direction: metrics_of(ranks).as_dict() for direction, ranks in both.items()},
        "intervals": {d: {name: list(bounds) for name, bounds in found.items()} for d, found in sure.items()},
        "ranks": {
            direction: [of | {"rank": rank} for of, rank in zip(asked[direction], ranks.tolist(), strict=True)]
            for direction, ranks in both.items()
        },
    }


def check_described(queries: Sequence[Query], gallery: Sequence[str]) -> None:
    """Nothing, where every query's video is in the gallery.

    Raises:
        InputError: one is not.
    """
    there = set(gallery)
    for query in queries:
        if query.video_id not in there:
            raise InputError(f"There is no video '{query.video_id[:60]}' among the {len(gallery)} that are ranked.")

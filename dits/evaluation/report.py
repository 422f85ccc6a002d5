"""A report on a set of queries and their videos: metrics, bootstrap intervals, and the rank of every query."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dits.common.errors import InputError
from dits.corpora.corpus import Query
from dits.evaluation.metrics import match_queries, metrics_of, ranks_by_direction
from dits.evaluation.significance import BootstrapConfig, intervals


def evaluation_report(
    scores: Tensor | np.ndarray, queries: Sequence[Query], gallery: Sequence[str], config: BootstrapConfig | None = None
) -> dict[str, Any]:
    """Evaluate scores (queries, videos of the gallery): JSON values for t2v and, with at least two videos, v2t.

    `n` is the number of ranks. `metrics` and `intervals` have the names of `dits.evaluation.metrics.METRIC_NAMES`;
    `intervals` is empty for a single video. `ranks` are in the order of the queries, or for v2t in the order of the
    queries' videos in the gallery.

    Raises:
        InputError: a query's video is not in the gallery, or a score is not a number.
    """
    check_queries_in_gallery(queries, gallery)
    targets = match_queries(queries, gallery).targets
    config = config or BootstrapConfig()
    by_direction, videos = ranks_by_direction(scores, targets), {"t2v": targets, "v2t": np.unique(targets)}
    if len(videos["v2t"]) < 2:
        del by_direction["v2t"]
    bounds = {direction: intervals(ranks, videos[direction], config) for direction, ranks in by_direction.items()}
    entries: dict[str, list[dict[str, str]]] = {
        "t2v": [{"video_id": query.video_id, "caption": query.caption} for query in queries],
        "v2t": [{"video_id": gallery[video]} for video in videos["v2t"]],
    }
    return {
        "n": {direction: len(ranks) for direction, ranks in by_direction.items()},
        "metrics": {direction: metrics_of(ranks).as_dict() for direction, ranks in by_direction.items()},
        "intervals": {d: {name: list(interval) for name, interval in named.items()} for d, named in bounds.items()},
        "ranks": {
            direction: [entry | {"rank": rank} for entry, rank in zip(entries[direction], ranks.tolist(), strict=True)]
            for direction, ranks in by_direction.items()
        },
    }


def check_queries_in_gallery(queries: Sequence[Query], gallery: Sequence[str]) -> None:
    """Check that every query's video is in the gallery.

    Raises:
        InputError: a query's video is not in the gallery.
    """
    ids = set(gallery)
    for query in queries:
        if query.video_id not in ids:
            raise InputError(f"There is no video '{query.video_id[:60]}' among the {len(gallery)} that are ranked.")

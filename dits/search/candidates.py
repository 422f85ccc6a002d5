"""Candidate search in a large index: finds the videos that are nearest by mean embedding, to rank them exactly."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dits.index.snapshot import Snapshot, find_rows
from dits.index.store import VideoIndex
from dits.search.ranker import Candidates, FindCandidates

EXACT_ON_CPU = 200_000
"""Maximum number of segments that a CPU ranks exactly if the index has a vector index. A GPU ranks all segments."""

CANDIDATES = 16_000
"""Number of segments that are ranked exactly for each embedding of a query."""

_SAMPLE = 500  # rows that represent the gallery in the statistics of scores


def make_vector_index(index: VideoIndex, always: bool = False) -> str:
    """Make the vector index for candidates if a CPU would use it, or `always`; returns a sentence for the user.

    Raises:
        IndexStoreError: the index cannot be read or written.
    """
    segments = index.counts()["segments"]
    if segments <= EXACT_ON_CPU and not always:
        return f"{index.location} is compact; its {segments} segments are ranked exactly without a vector index."
    index.make_vector_index()
    return f"{index.location} is compact and has a vector index of {segments} segments."


def candidate_search(
    index: VideoIndex,
    snapshot: Snapshot,
    device: torch.device,
    notice: Callable[[str], None],
    exact_up_to: int = EXACT_ON_CPU,
    count: int = CANDIDATES,
) -> FindCandidates | None:
    """The function that finds candidates, or None if all segments are scored.

    Args:
        device: the device of scoring.
        notice: called with a sentence if all segments are scored because there is no vector index.
        exact_up_to: see `EXACT_ON_CPU`.
        count: see `CANDIDATES`.
    """
    if device.type != "cpu" or len(snapshot) <= exact_up_to:
        return None
    if not index.has_vector_index:
        notice(
            f"All {len(snapshot)} segments are scored for every query: `python -m dits index optimize` makes a vector "
            "index, which is faster."
        )
        return None
    nearest = _NearestRows(index, snapshot)
    sample = np.linspace(0, len(snapshot) - 1, _SAMPLE).astype(int)

    def candidates(texts: Tensor) -> Candidates:
        rows = np.unique(np.concatenate([sample, *(nearest(text.numpy(), count) for text in texts)]))
        return Candidates(torch.from_numpy(rows), torch.from_numpy(np.isin(rows, sample)))

    return candidates


class _NearestRows:
    """Finds the nearest rows of a snapshot in the latest version of the index. Caches its row ids: reading is slow."""

    def __init__(self, index: VideoIndex, snapshot: Snapshot) -> None:
        self._index, self._snapshot = index, snapshot
        self._version: int | None = None
        self._row_ids, self._rows = np.empty(0, np.uint64), np.empty(0, np.int64)

    def __call__(self, vector: np.ndarray, count: int) -> np.ndarray:
        """The rows of the nearest segments, without segments that are not in the snapshot."""
        version = self._index.version
        if version != self._version:
            self._read_row_ids()
            self._version = version
        positions, _ = find_rows(self._row_ids, self._index.nearest(vector, count))
        return self._rows[positions]

    def _read_row_ids(self) -> None:
        row_ids, ids = self._index.row_ids()
        rows, positions = find_rows(self._snapshot.ids, np.array(ids, self._snapshot.ids.dtype))
        order = np.argsort(row_ids[positions])
        self._row_ids, self._rows = row_ids[positions][order], rows[order]

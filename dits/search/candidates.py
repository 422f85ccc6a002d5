"""Which videos of a large index are scored for a text: the nearest by mean embedding, which are then ranked exactly."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dits.index.snapshot import Snapshot, rows_of
from dits.index.store import VideoIndex
from dits.search.engine import Candidates, FindCandidates

EXACT_ON_CPU = 200_000
"""Segments. A CPU ranks more than these by candidates, where the index has a vector index; a GPU ranks all."""

CANDIDATES = 16_000
"""Segments that are ranked exactly for each embedding of a text."""

_SAMPLE = 500  # rows that stand for the gallery when scores are set in proportion


def make_vector_index(index: VideoIndex, always: bool = False) -> str:
    """Makes the vector index that candidates come from, where a CPU would use it or `always`; says what was done.

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
    """How candidates are found; None where all segments are scored.

    Args:
        device: where scores are computed.
        notice: told in a sentence where all are scored only for want of a vector index.
        exact_up_to: so many segments are all scored on a CPU.
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
    find = _Nearest(index, snapshot)
    sample = np.linspace(0, len(snapshot) - 1, _SAMPLE).astype(int)

    def candidates(texts: Tensor) -> Candidates:
        rows = np.unique(np.concatenate([sample, *(find(text.numpy(), count) for text in texts)]))
        return Candidates(torch.from_numpy(rows), torch.from_numpy(np.isin(rows, sample)))

    return candidates


class _Nearest:
    """Looks up rows of a snapshot in the index's latest version, whose places it learns when they have changed.

    To ask the index for ids would take longer than the search itself.
    """

    def __init__(self, index: VideoIndex, snapshot: Snapshot) -> None:
        self._index, self._snapshot = index, snapshot
        self._version: int | None = None
        self._places, self._rows = np.empty(0, np.uint64), np.empty(0, np.int64)

    def __call__(self, vector: np.ndarray, count: int) -> np.ndarray:
        """The rows of the nearest segments; those that the snapshot does not have are left out."""
        version = self._index.version
        if version != self._version:
            self._learn()
            self._version = version
        at, _ = rows_of(self._places, self._index.nearest(vector, count))
        return self._rows[at]

    def _learn(self) -> None:
        places, ids = self._index.places()
        rows, which = rows_of(self._snapshot.ids, np.array(ids, self._snapshot.ids.dtype))
        order = np.argsort(places[which])
        self._places, self._rows = places[which][order], rows[order]

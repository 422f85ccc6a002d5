"""Which videos of a large index are scored for a text: the nearest by mean embedding, which are then ranked exactly."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dits.index.snapshot import Snapshot, rows_of
from dits.index.store import VideoIndex
from dits.search import Candidates, FindCandidates

EXACT_ON_CPU = 200_000
"""Segments. A CPU ranks more than these by candidates, where the index has a vector index; a GPU ranks all."""

CANDIDATES = 5000
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
    sample = np.linspace(0, len(snapshot) - 1, _SAMPLE).astype(int)

    def candidates(texts: Tensor) -> Candidates:
        found = [
            rows_of(snapshot.ids, np.array(index.nearest(text.numpy(), count), snapshot.ids.dtype))[0] for text in texts
        ]
        rows = np.unique(np.concatenate([sample, *found]))
        return Candidates(torch.from_numpy(rows), torch.from_numpy(np.isin(rows, sample)))

    return candidates

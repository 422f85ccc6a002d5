"""Out-of-memory errors of a GPU: retry with smaller batches, or raise MemoryFullError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dits.common.errors import MemoryFullError

if TYPE_CHECKING:  # imported when used, so that commands without computation start faster
    from torch import Tensor


@contextmanager
def memory_errors() -> Iterator[None]:
    """Convert a GPU's out-of-memory error to MemoryFullError, and free cached GPU memory.

    Raises:
        MemoryFullError: the GPU has no memory left.
    """
    try:
        yield
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        torch.cuda.empty_cache()
        raise MemoryFullError(
            "The GPU has no memory left for this: try again later, end other programs that use the GPU, or restart "
            "with CUDA_VISIBLE_DEVICES= to compute on the CPU."
        ) from error


def compute_in_batches(compute: Callable[[Tensor], Tensor], items: Tensor, batch_size: int) -> Tensor:
    """Apply `compute` to batches of items; whenever the GPU runs out of memory, start again with half the batch size.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    import torch

    while True:
        try:
            return torch.cat([compute(batch) for batch in items.split(batch_size)])
        except torch.OutOfMemoryError:
            if min(batch_size, len(items)) == 1:
                raise
        batch_size = min(batch_size, len(items)) // 2
        torch.cuda.empty_cache()

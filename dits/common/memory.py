"""A GPU whose memory is full: fewer things at once, or one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dits.common.errors import MemoryFullError

if TYPE_CHECKING:  # imported where it is used, so that commands that compute nothing start without it
    from torch import Tensor


@contextmanager
def memory_errors() -> Iterator[None]:
    """What is computed inside raises MemoryFullError where the GPU has no memory left; what is spare is given back."""
    try:
        yield
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        torch.cuda.empty_cache()
        raise MemoryFullError(
            "The GPU has no memory left for this: try again when others have finished, end what else runs on it, or "
            "start again with CUDA_VISIBLE_DEVICES= to compute on the CPU."
        ) from error


def in_parts(compute: Callable[[Tensor], Tensor], items: Tensor, at_once: int) -> Tensor:
    """What is computed of so many items at once; of half as many, and of half of those, where a GPU has no memory for
    more.

    Raises:
        torch.OutOfMemoryError: it has none for one.
    """
    import torch

    while True:
        try:
            return torch.cat([compute(some) for some in items.split(at_once)])
        except torch.OutOfMemoryError:
            if min(at_once, len(items)) == 1:
                raise
        at_once = min(at_once, len(items)) // 2
        torch.cuda.empty_cache()

"""A GPU whose memory is full, as one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dits.errors import MemoryFullError


@contextmanager
def memory_errors() -> Iterator[None]:
    """What is computed inside raises MemoryFullError where the GPU has no memory left; what is spare is given back."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryFullError(
            "The GPU has no memory left for this: try again when others have finished, end what else runs on it, or "
            "start again with CUDA_VISIBLE_DEVICES= to compute on the CPU."
        ) from error

"""Support for Hugging Face's ZeroGPU, which allocates a GPU for each call. Elsewhere functions are called directly.

ZeroGPU runs a decorated function in a process forked from this one. Arguments and results are pickled; all other
changes of the function are lost. Each call waits for a GPU and counts against the visitor's daily quota of a few
minutes. Therefore only the slow part, the embedding of added videos, is decorated. On the CPU a query is ranked in less
time than the allocation of a GPU takes.
"""

import copy
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dits.encoders.openclip import OpenClipEncoder

try:
    import spaces
except ImportError:  # installed only on Spaces
    spaces = None

ZERO_GPU = spaces is not None and spaces.config.Config.zero_gpu
"""Whether the app runs on ZeroGPU. PyTorch then reports a GPU, but this process must not use it."""

DEVICE = "cpu" if ZERO_GPU else None
"""Device of this process; None: chosen automatically."""

_SECONDS = 20  # time limit of a batch; the first batch forks a process and moves the model
_SEGMENTS_AT_ONCE = 16
_RETRY_DELAY = 120.0  # seconds without another attempt after no GPU was allocated


def on_gpu(function: Callable[..., Any], seconds: int) -> Callable[..., Any]:
    """Return `function` decorated to run on a ZeroGPU for at most `seconds`; without ZeroGPU, `function` itself."""
    return spaces.GPU(duration=seconds)(function) if spaces is not None else function


class ZeroGpu:
    """Embeds frames on a ZeroGPU, or on the CPU if no GPU is allocated. Thread-safe.

    Create it before the page is served: ZeroGPU rejects an app without a decorated function.
    """

    def __init__(self) -> None:
        self._encoder: OpenClipEncoder | None = None
        self._gpu_encoder: OpenClipEncoder | None = None  # set only in the process that has the GPU
        self._embed = on_gpu(self._embed_on_gpu, _SECONDS)
        self._lock = threading.Lock()
        self._retry_at = 0.0

    def serve(self, encoder: OpenClipEncoder) -> OpenClipEncoder:
        """Return a copy of the CPU encoder that embeds its frames with this object."""
        self._encoder = encoder
        return _ZeroGpuEncoder(encoder, self)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """See `dits.encoders.openclip.Encoder`."""
        assert self._encoder is not None
        with self._lock:
            if time.monotonic() >= self._retry_at:
                try:
                    return torch.from_numpy(self._embed(pixels.numpy()))
                except Exception as error:  # quota exceeded, no free GPU, process died: any type
                    logging.getLogger(__name__).warning("No GPU was allocated; the CPU embeds the frames: %s", error)
                    self._retry_at = time.monotonic() + _RETRY_DELAY
        return self._encoder.encode_pixels(pixels)

    def _embed_on_gpu(self, pixels: np.ndarray) -> np.ndarray:
        """Embed pixels (B, F, 3, H, W) as (B, F, d), in the process that has the GPU."""
        if self._gpu_encoder is None:
            torch.set_num_threads(1)  # several threads hang in a forked process
            assert self._encoder is not None
            self._gpu_encoder = self._encoder.on("cuda" if torch.cuda.is_available() else "cpu")
        return self._gpu_encoder.encode_pixels(torch.from_numpy(pixels)).numpy()


class _ZeroGpuEncoder(OpenClipEncoder):
    """An encoder on the CPU whose frames are embedded on a ZeroGPU."""

    segment_batch_size = _SEGMENTS_AT_ONCE

    def __init__(self, encoder: OpenClipEncoder, gpu: ZeroGpu) -> None:
        vars(self).update(vars(copy.copy(encoder)))
        self._gpu = gpu

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """See `dits.encoders.openclip.Encoder`."""
        return self._gpu.encode_pixels(pixels)

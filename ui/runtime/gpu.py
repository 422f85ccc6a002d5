"""A GPU that is lent for a call, as Hugging Face's ZeroGPU does. Everywhere else a function is just called.

ZeroGPU runs a decorated function in a process that is forked from this one: arguments and results are pickled, and what
else the function changes is lost. Each call waits for a GPU and counts against the visitor's quota of some minutes a
day, so only what takes a CPU long is decorated: the embedding of added videos. A sentence is ranked in less time than a
GPU takes to be lent.
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
except ImportError:  # it is there on every Space
    spaces = None

LENT = spaces is not None and spaces.config.Config.zero_gpu
"""Whether GPUs are lent here; PyTorch says then that there is one, and this process must not use it."""

DEVICE = "cpu" if LENT else None
"""Where this process computes; None for wherever it can."""

_SECONDS = 20  # that a batch may take; the first one forks a process and moves the model
_SEGMENTS_AT_ONCE = 16
_REST = 120.0  # seconds without asking again, where no GPU was to be had


def on_gpu(function: Callable[..., Any], seconds: int) -> Callable[..., Any]:
    """A function that is called with a GPU at hand for so many seconds; the same one where none is lent."""
    return spaces.GPU(duration=seconds)(function) if spaces is not None else function


class LentGpu:
    """Embeds frames on a lent GPU, and on the CPU where none is to be had. Safe to use from several threads.

    To be made before the page is served: the platform refuses one that asks for no GPU.
    """

    def __init__(self) -> None:
        self._encoder: OpenClipEncoder | None = None
        self._there: OpenClipEncoder | None = None  # the encoder in the process that has the GPU
        self._embed = on_gpu(self._embedded, _SECONDS)
        self._turn = threading.Lock()
        self._asks_from = 0.0

    def serve(self, encoder: OpenClipEncoder) -> OpenClipEncoder:
        """An encoder, on the CPU, like the one that is given, but that its frames are embedded here."""
        self._encoder = encoder
        return _LentEncoder(encoder, self)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """See `dits.encoders.openclip.Encoder`."""
        assert self._encoder is not None
        with self._turn:
            if time.monotonic() >= self._asks_from:
                try:
                    return torch.from_numpy(self._embed(pixels.numpy()))
                except Exception as error:  # no quota, no GPU free, a process that died: of all kinds
                    logging.getLogger(__name__).warning("No GPU was lent, the CPU embeds: %s", error)
                    self._asks_from = time.monotonic() + _REST
        return self._encoder.encode_pixels(pixels)

    def _embedded(self, pixels: np.ndarray) -> np.ndarray:
        """Embeddings (B, F, d) of pixels (B, F, 3, H, W), in the process that has the GPU."""
        if self._there is None:
            torch.set_num_threads(1)  # a process that is forked hangs in several
            assert self._encoder is not None
            self._there = self._encoder.on("cuda" if torch.cuda.is_available() else "cpu")
        return self._there.encode_pixels(torch.from_numpy(pixels)).numpy()


class _LentEncoder(OpenClipEncoder):
    """An encoder on the CPU whose frames a lent GPU embeds."""

    segments_at_once = _SEGMENTS_AT_ONCE

    def __init__(self, encoder: OpenClipEncoder, gpu: LentGpu) -> None:
        vars(self).update(vars(copy.copy(encoder)))
        self._gpu = gpu

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """See `dits.encoders.openclip.Encoder`."""
        return self._gpu.encode_pixels(pixels)

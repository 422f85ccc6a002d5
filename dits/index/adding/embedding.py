"""Embedding of segments in batches, with a check of reduced precision against full precision."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.common.errors import InputError, VideoError
from dits.encoders.openclip import OpenClipEncoder
from dits.index.adding.reader import ReadSegment
from dits.models.pooling import mean_pool

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_NUM_CHECKED = 16  # segments
_MIN_COSINE = 0.995  # between a frame's embeddings in reduced and in full precision


class SegmentEncoder:
    """Embeds segments.

    With reduced precision, the first segments are also embedded in full precision. If any frame's embedding differs too
    much, the rest of the run uses full precision, and `notices` says so.

    Raises:
        InputError: the precision is unknown.
    """

    def __init__(self, encoder: OpenClipEncoder, precision: str = "auto") -> None:
        on_gpu = encoder.device.type == "cuda"
        name = ("fp16" if on_gpu else "fp32") if precision == "auto" else precision
        if name not in PRECISIONS:
            raise InputError(f"There is no precision '{precision}': choose auto or one of {', '.join(PRECISIONS)}.")
        self.notices: list[str] = []
        self._encoder, self._on_gpu, self._precision = encoder, on_gpu, name
        self._unchecked = 0 if name == "fp32" else _NUM_CHECKED

    def __call__(self, segments: Sequence[ReadSegment]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Frame embeddings (F, d), float16, and the mean-pooled embedding (d,), of each segment.

        Raises:
            VideoError: an embedding is not finite.
        """
        size = self._encoder.segment_batch_size
        for start in range(0, len(segments), size):
            pixels = torch.from_numpy(np.stack([segment.pixels for segment in segments[start : start + size]]))
            frames = self._embed(pixels.pin_memory() if self._on_gpu else pixels).half()
            if not torch.isfinite(frames).all():
                raise VideoError("The embedding of a segment is not finite: choose --precision fp32.")
            for own, mean in zip(frames, mean_pool(frames.float()), strict=True):
                yield own.numpy(), mean.numpy()

    def _embed(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, F, d) of pixels (B, F, 3, H, W)."""
        if self._precision == "fp32":
            return self._encoder.encode_pixels(pixels)
        with torch.autocast(self._encoder.device.type, PRECISIONS[self._precision]):
            reduced = self._encoder.encode_pixels(pixels)
        if self._unchecked <= 0:
            return reduced
        self._unchecked -= len(pixels)
        full = self._encoder.encode_pixels(pixels)
        if float(F.cosine_similarity(reduced, full, dim=-1).min()) >= _MIN_COSINE:
            return reduced
        self.notices.append(f"Embeddings in {self._precision} differ too much from fp32: they are computed in fp32.")
        self._precision = "fp32"
        return full

"""Segments' pixels -> embeddings, in batches, in reduced precision on a GPU if that ranks as full precision does."""

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

_CHECKED = 16
_MIN_COSINE = 0.995  # of a frame's embedding in reduced precision to the one in full


class SegmentEncoder:
    """Embeds segments.

    The first ones are embedded in full precision as well: where a reduced one moves any frame's embedding too far, it
    is given up for the whole run, and `notices` says so.

    Raises:
        InputError: there is no such precision.
    """

    def __init__(self, encoder: OpenClipEncoder, precision: str = "auto") -> None:
        on_gpu = encoder.device.type == "cuda"
        name = ("fp16" if on_gpu else "fp32") if precision == "auto" else precision
        if name not in PRECISIONS:
            raise InputError(f"There is no precision '{precision}': choose auto or one of {', '.join(PRECISIONS)}.")
        self.notices: list[str] = []
        self._encoder, self._on_gpu, self._precision = encoder, on_gpu, name
        self._unchecked = 0 if name == "fp32" else _CHECKED

    def __call__(self, segments: Sequence[ReadSegment]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Frame embeddings (F, d), float16, and the mean-pooled one (d,) of each segment.

        Raises:
            VideoError: an embedding is no finite number.
        """
        at_once = self._encoder.segments_at_once
        for start in range(0, len(segments), at_once):
            pixels = torch.from_numpy(np.stack([segment.pixels for segment in segments[start : start + at_once]]))
            frames = self._encoded(pixels.pin_memory() if self._on_gpu else pixels).half()
            if not torch.isfinite(frames).all():
                raise VideoError("The encoder gives no finite embedding of a segment: choose --precision fp32.")
            for own, mean in zip(frames, mean_pool(frames.float()), strict=True):
                yield own.numpy(), mean.numpy()

    def _encoded(self, pixels: Tensor) -> Tensor:
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
        self.notices.append(f"In {self._precision} embeddings differ too much here: they are computed in fp32.")
        self._precision = "fp32"
        return full

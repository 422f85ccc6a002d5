"""Index rows without videos."""

import numpy as np
import torch

from dits.corpora.corpus import FRAMES
from dits.index.schema import SegmentRow
from dits.models.pooling import mean_pool

DIM = 32


def rows(numbers):
    """Segments whose embeddings depend only on their numbers."""
    return [row_of(n, torch.randn(FRAMES, DIM, generator=torch.Generator().manual_seed(n))) for n in numbers]


def row_of(number, frames):
    """A segment of the video with a number, with frame embeddings (F, d)."""
    return SegmentRow(
        path=f"/v/{number}.mp4".encode(),
        size=1,
        mtime=1,
        video=f"{number * 7919 % 10007:020x}",
        segmenting="whole",
        segments=1,
        duration=10.0,
        start=0.0,
        end=10.0,
        times=np.arange(FRAMES, dtype=np.float32) + number,
        thumbnail=b"",
        mean=mean_pool(frames[None])[0].numpy(),
        frames=frames.half().numpy(),
    )

"""Which pairs of a batch's text and another pair's video are no negatives: they show the same, or are said to."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class IgnoredPairs:
    """Tells which pairs of a batch are no negatives of each other."""

    def __init__(self, captions: Sequence[str], video_of: np.ndarray, ignore: str) -> None:
        """All captions as they are written, with their videos (N,); `ignore` as in `TrainingConfig`."""
        self._video_of = video_of
        self._same_video = ignore in ("video", "both")
        self._captions = captions
        self._videos_of: dict[str, set[int]] = {}  # of captions that several videos share
        if ignore in ("caption", "both"):
            videos: dict[str, set[int]] = {}
            for caption, video in zip(captions, video_of.tolist(), strict=True):
                videos.setdefault(caption, set()).add(video)
            self._videos_of = {caption: found for caption, found in videos.items() if len(found) > 1}

    def of(self, rows: np.ndarray) -> Tensor | None:
        """(B, B) marks text i and video j of a batch of captions (B,), by number; None where nothing is marked."""
        videos = self._video_of[rows]
        marked = np.zeros((len(rows), len(rows)), bool)
        if self._same_video:
            marked |= videos[:, None] == videos
        for i, row in enumerate(rows):
            shared = self._videos_of.get(self._captions[row])
            if shared:
                marked[i] |= np.isin(videos, list(shared - {int(videos[i])}))
        np.fill_diagonal(marked, False)
        return torch.from_numpy(marked) if marked.any() else None

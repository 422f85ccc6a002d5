"""Pairs of a batch that are not negatives: the text is a caption of that video, or that video has the same caption."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class IgnoredPairs:
    """Finds the pairs of a batch that are not negatives of each other."""

    def __init__(self, captions: Sequence[str], video_of: np.ndarray, ignore: str) -> None:
        """All captions, with the video of each (N,); `ignore` as in `TrainingConfig`."""
        self._video_of = video_of
        self._same_video = ignore in ("video", "both")
        self._captions = captions
        self._videos_of: dict[str, set[int]] = {}  # only captions that several videos share
        if ignore in ("caption", "both"):
            videos_of: dict[str, set[int]] = {}
            for caption, video in zip(captions, video_of.tolist(), strict=True):
                videos_of.setdefault(caption, set()).add(video)
            self._videos_of = {caption: videos for caption, videos in videos_of.items() if len(videos) > 1}

    def mask(self, rows: np.ndarray) -> Tensor | None:
        """(B, B), True at (i, j) if caption i and video j are ignored, for caption numbers (B,); None if none is."""
        videos = self._video_of[rows]
        ignored = np.zeros((len(rows), len(rows)), bool)
        if self._same_video:
            ignored |= videos[:, None] == videos
        for i, row in enumerate(rows):
            shared = self._videos_of.get(self._captions[row])
            if shared:
                ignored[i] |= np.isin(videos, list(shared - {int(videos[i])}))
        np.fill_diagonal(ignored, False)
        return torch.from_numpy(ignored) if ignored.any() else None

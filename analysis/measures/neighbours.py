"""Who lies next to whom across the modalities: mixing of neighbourhoods, and hubs."""

import torch
from torch import Tensor

NEIGHBOURS = 10
"""k of both measures."""

_BLOCK_NUMBERS = 4_000_000  # numbers in one block of cosines: 16 MB


def cross_modal_neighbours(texts: Tensor, videos: Tensor) -> float:
    """How far texts and videos, unit vectors (n, d) and (m, d), are neighbours of each other: 0 none, 1 fully mixed.

    For each point, the share of its 10 nearest neighbours in the union, itself left out, that are of the other
    modality, over the share expected where the modalities are shuffled: m / (n + m - 1) for a text, n / (n + m - 1)
    for a video. The mean over texts and the mean over videos count alike, whatever their numbers. After the
    nearest-neighbour test of two samples (Schilling 1986). Above 1, points lie nearer to the other modality than to
    their own; with 11 points or fewer, all are neighbours and it is 1 by construction.
    """
    n, m = len(texts), len(videos)
    union = torch.cat([texts, videos])
    nearest = _nearest(union, union, min(NEIGHBOURS, n + m - 1), apart=True)
    text_share = (nearest[:n] >= n).double().mean() * (n + m - 1) / m
    video_share = (nearest[n:] < n).double().mean() * (n + m - 1) / n
    return float((text_share + video_share) / 2)


def hubness(texts: Tensor, videos: Tensor) -> float:
    """Skewness of how often each video, unit vectors (m, d), is among the 10 nearest of a text (n, d).

    The third standardised moment of the k-occurrence (Radovanovic et al. 2010), 0 where all videos occur alike, as
    they do with 10 videos or fewer.
    """
    from scipy.stats import skew

    occurrences = torch.bincount(_nearest(texts, videos, min(NEIGHBOURS, len(videos))).flatten(), minlength=len(videos))
    return 0.0 if (occurrences == occurrences[0]).all() else float(skew(occurrences.numpy()))


def _nearest(points: Tensor, gallery: Tensor, k: int, *, apart: bool = False) -> Tensor:
    """The numbers (n, k) of the nearest of unit vectors (m, d) to unit vectors (n, d); `apart`: they are the same
    points, and none is its own neighbour."""
    points, gallery = points.float(), gallery.float()
    found = []
    for rows in torch.arange(len(points)).split(max(1, _BLOCK_NUMBERS // len(gallery))):
        cosines = points[rows] @ gallery.T
        if apart:
            cosines[torch.arange(len(rows)), rows] = -torch.inf
        found.append(cosines.topk(k, dim=1).indices)
    return torch.cat(found)

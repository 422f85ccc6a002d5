"""Nearest neighbours across the modalities: mixing of neighbourhoods, and hubness."""

import torch
from torch import Tensor

NEIGHBOURS = 10
"""k of both measures."""

_BLOCK_NUMBERS = 4_000_000  # numbers in a block of cosines: 16 MB


def cross_modal_neighbours(texts: Tensor, videos: Tensor) -> float:
    """Mixing of texts and videos, unit vectors (n, d) and (m, d), among nearest neighbours: 0 none, 1 fully mixed.

    For each point: the share of the other modality among its 10 nearest neighbours (without itself) in the union,
    divided by the share expected if the modalities were shuffled, m / (n + m - 1) for a text and n / (n + m - 1) for a
    video. The result is the average of the mean over texts and the mean over videos. It follows the two-sample
    nearest-neighbour test (Schilling 1986). Above 1, points are nearer to the other modality than to their own. With at
    most 11 points, all are neighbours and the result is 1 by construction.
    """
    n, m = len(texts), len(videos)
    union = torch.cat([texts, videos])
    nearest = _nearest(union, union, min(NEIGHBOURS, n + m - 1), exclude_self=True)
    text_share = (nearest[:n] >= n).double().mean() * (n + m - 1) / m
    video_share = (nearest[n:] < n).double().mean() * (n + m - 1) / n
    return float((text_share + video_share) / 2)


def hubness(texts: Tensor, videos: Tensor) -> float:
    """Skewness of the k-occurrence of videos, unit vectors (m, d): how often each is among a text's 10 nearest.

    The third standardised moment (Radovanovic et al. 2010) over texts (n, d). It is 0 if all videos occur equally
    often, as they do if there are at most 10.
    """
    from scipy.stats import skew

    occurrences = torch.bincount(_nearest(texts, videos, min(NEIGHBOURS, len(videos))).flatten(), minlength=len(videos))
    return 0.0 if (occurrences == occurrences[0]).all() else float(skew(occurrences.numpy()))


def _nearest(points: Tensor, gallery: Tensor, k: int, *, exclude_self: bool = False) -> Tensor:
    """Indices (n, k) of the nearest gallery vectors (m, d) to unit vectors (n, d).

    With `exclude_self` both are the same points, and no point is its own neighbour.
    """
    points, gallery = points.float(), gallery.float()
    nearest = []
    for rows in torch.arange(len(points)).split(max(1, _BLOCK_NUMBERS // len(gallery))):
        cosines = points[rows] @ gallery.T
        if exclude_self:
            cosines[torch.arange(len(rows)), rows] = -torch.inf
        nearest.append(cosines.topk(k, dim=1).indices)
    return torch.cat(nearest)

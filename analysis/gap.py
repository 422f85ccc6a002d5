"""How far apart texts and videos lie: measures of the modality gap, on any paired embeddings.

All take texts (N, d) and the videos that belong to them (N, d), of any norm; they are normalised here, as the papers
do before they measure. Which vector stands for a video is for the caller to say: a video pooled by its own text lies
closer to that text by construction than the mean of its frames does.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.errors import InputError


@dataclass(frozen=True)
class GapMeasures:
    """One place along the way from text to video.

    Attributes:
        cosine: mean cosine of the pairs (Table 9 of the DITS paper).
        l1: mean L1 distance of the pairs (Table 9).
        l2: mean L2 distance of the pairs (Figure 4); the L2I of Schrodi et al. 2024.
        centroid_distance: distance of the two centroids (Liang et al. 2022).
        rmg: relative modality gap (Schrodi et al. 2024): 0 where pairs coincide, 0.5 where a pair is as far apart as
            two points of one modality.
        text_cone: mean cosine of two different texts: 0 for a full sphere, towards 1 for a narrow cone (Liang et al.).
        video_cone: the same of two different videos.
        text_uniformity: log of the mean of exp(-2 |x - y|^2) over different texts (Wang and Isola 2020); the lower,
            the more evenly they fill the sphere.
        video_uniformity: the same of the videos.
    """

    cosine: float
    l1: float
    l2: float
    centroid_distance: float
    rmg: float
    text_cone: float
    video_cone: float
    text_uniformity: float
    video_uniformity: float


def gap_measures(texts: Tensor, videos: Tensor) -> GapMeasures:
    """All measures of pairs: texts (N, d) and videos (N, d).

    Raises:
        InputError: fewer than two texts or two videos differ.
    """
    t, v = F.normalize(texts.double(), dim=-1), F.normalize(videos.double(), dim=-1)
    difference = v - t
    return GapMeasures(
        cosine=float((t * v).sum(dim=-1).mean()),
        l1=float(difference.abs().sum(dim=-1).mean()),
        l2=float(difference.norm(dim=-1).mean()),
        centroid_distance=float(difference.mean(dim=0).norm()),
        rmg=relative_modality_gap(t, v),
        text_cone=float(_cosines_within(t).mean()),
        video_cone=float(_cosines_within(v).mean()),
        text_uniformity=_uniformity(t),
        video_uniformity=_uniformity(v),
    )


def relative_modality_gap(texts: Tensor, videos: Tensor) -> float:
    """RMG (Schrodi et al. 2024, "Two Effects, One Trigger") of unit texts (N, d) and videos (N, d), from 0 to about 1.

    With d(a, b) = (1 - cos) / 2: the mean over pairs, over itself plus half the sum of the two mean distances within
    the modalities, each over distinct points.
    """
    paired = float(((1 - (texts * videos).sum(dim=-1)) / 2).mean())
    within = (_mean_distance_within(texts) + _mean_distance_within(videos)) / 2
    return paired / (paired + within)


def _mean_distance_within(points: Tensor) -> float:
    return float((1 - _cosines_within(points).mean()) / 2)


def _uniformity(points: Tensor) -> float:
    squared = 2 - 2 * _cosines_within(points)  # |x - y|^2 of unit vectors
    return float((-2 * squared).exp().mean().log())


def _cosines_within(points: Tensor) -> Tensor:
    """Cosines of pairs of distinct unit points: a video that several captions share is one point."""
    points = torch.unique(points, dim=0)
    if len(points) < 2:
        raise InputError("The modality gap needs at least two different texts and two different videos.")
    first, second = torch.triu_indices(len(points), len(points), offset=1)
    return (points @ points.T)[first, second]

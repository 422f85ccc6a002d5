"""Measures of texts and videos as two distributions: how evenly each fills the sphere, and how far they differ.

Sums over all pairs of points are computed in blocks in single precision, and accumulated in double precision.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.measures.points import Points, first_appearances
from dits.common.errors import require

FOLDS = 5
"""Folds of the cross-validation of separability."""

_BLOCK_NUMBERS = 4_000_000  # numbers in a block of the matrix of all pairs: 16 MB
_BANDWIDTH_POINTS = 2_000  # maximum number of points for the median distance


@dataclass(frozen=True)
class Cloud:
    """Points for sums over pairs of points.

    Attributes:
        units: (n, d) unit vectors.
        label: (n,) points with the same label are never compared, such as a point and itself.
        group: (n,) the bootstrap draws points of one group together. Points with one label are of one group. Groups
            are numbered from 0.
    """

    units: Tensor
    label: Tensor
    group: Tensor


def mean_cosine(points: Tensor) -> float:
    """The mean cosine over all pairs of distinct rows of unit vectors (n, d): the cone effect (Liang et al. 2022)."""
    count = len(points)
    return float((points.sum(dim=0).square().sum() - count) / (count * (count - 1)))


def uniformity(points: Points, group: Tensor | None = None, draws: Tensor | None = None) -> Tensor:
    """log mean exp(-2 |x - y|^2) over pairs without the diagonal (Wang and Isola 2020, t = 2): (B,).

    From -8 (all points opposite each other) to 0 (all coincide). `group` and `draws` as for `mean_kernel`.
    """
    label = torch.arange(len(points))
    cloud = Cloud(points.units, label, label if group is None else group)
    return mean_kernel(cloud, cloud, lambda cosine: cosine.sub_(1).mul_(4).exp_(), draws).log()


def mmd(
    texts: Points,
    videos: Points,
    groups: tuple[Tensor, Tensor] | None = None,
    draws: Tensor | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Squared maximum mean discrepancy (B,) with a Gaussian kernel whose bandwidth is `median_distance`.

    The unbiased estimate for paired samples (Gretton et al. 2012, Equation 4, whose h excludes the kernel of x_i with
    its own y_i): points of the same video are never compared. If both distributions are the same, it is 0 on average
    and can be slightly negative. `groups` and `draws` as for `mean_kernel`.

    Raises:
        InputError: all texts belong to one video.
    """
    require(
        len(torch.unique(texts.video)) > 1,
        "All texts belong to one video: give pairs, each text with the video that it describes.",
    )
    text_group, video_group = groups or (texts.video, videos.video)
    t = Cloud(texts.units, texts.video, text_group)
    v = Cloud(videos.units, videos.video, video_group)
    width = median_distance(torch.cat([texts.units, videos.units]), seed)

    def kernel(cosine: Tensor) -> Tensor:
        return cosine.sub_(1).div_(width**2).exp_()  # exp(-|x - y|^2 / (2 width^2)) of unit vectors

    within = mean_kernel(t, t, kernel, draws) + mean_kernel(v, v, kernel, draws)
    return within - 2 * mean_kernel(t, v, kernel, draws)


def median_distance(points: Tensor, seed: int = 0) -> float:
    """The median heuristic: the median distance between points (n, d), of at most 2,000 random ones."""
    if len(points) > _BANDWIDTH_POINTS:
        drawn = np.random.default_rng(seed).choice(len(points), size=_BANDWIDTH_POINTS, replace=False)
        points = points[torch.from_numpy(drawn)]
    return float(np.median(torch.pdist(points).numpy()))


def mean_kernel(x: Cloud, y: Cloud, kernel: Callable[[Tensor], Tensor], draws: Tensor | None = None) -> Tensor:
    """Mean (B,) of a kernel, a function of the cosine, over all pairs of points of x and y whose labels differ.

    `draws` (B, groups) has the number of times that each of B resamples drew each group. The weight of a pair is the
    product of both numbers if its points are of two groups, and the number of draws if they are of one. Two draws of
    one group are never compared: they represent two groups, whose points would be less close than those of one.
    Without draws there is one resample, the points as they are.
    """
    draws = torch.ones(1, 1 + int(max(x.group.max(), y.group.max()))) if draws is None else draws
    weight_x, weight_y = draws[:, x.group].double(), draws[:, y.group].double()
    single_x, single_y, single_weight = x.units.float(), y.units.float(), weight_y.float()
    total = torch.zeros(len(draws), dtype=torch.float64)
    for rows in torch.arange(len(x.units)).split(max(1, _BLOCK_NUMBERS // len(y.units))):
        columns = slice(int(rows[0]) if x is y else 0, None)
        values = kernel(single_x[rows] @ single_y[columns].T)
        # If x is y, the matrix is symmetric: columns from `twice` on also count for their mirror images below the block
        twice = len(rows) if x is y else values.shape[1]
        row, column = _equal_pairs(x.group[rows], y.group[columns])
        same = values[row, column].double() * (1 + (column >= twice))
        same[x.label[rows][row] == y.label[columns][column]] = 0
        total += weight_x[:, rows] @ torch.zeros(len(rows), dtype=torch.float64).index_add_(0, row, same)
        values[row, column] = 0
        once, doubled = single_weight[:, columns].tensor_split([twice], dim=1)
        across = once @ values[:, :twice].T + 2 * (doubled @ values[:, twice:].T)
        total += (across.double() * weight_x[:, rows]).sum(dim=1)
    return total / _pairs(x, y, weight_x, weight_y)


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two Gaussians: means (d,), covariances (d, d).

    The squared distance of Dowson and Landau (1982), as in FID. The trace of the square root is the sum of the singular
    values of F_a' F_b, where C = F F'. It is real, for covariances of any rank.
    """
    return _frechet(mean_a, _factor(covariance_a), mean_b, _factor(covariance_b))


def frechet(texts: Tensor, videos: Tensor) -> float:
    """The Frechet distance between Gaussians fitted to unit vectors (n, d) and (m, d)."""
    return _frechet(texts.mean(dim=0), _factor_of(texts), videos.mean(dim=0), _factor_of(videos))


def separability(texts: Tensor, videos: Tensor, seed: int = 0) -> float:
    """Held-out accuracy of logistic regression between unit texts (n, d) and unit videos (m, d): chance is 0.5.

    scikit-learn's defaults (C = 1), cross-validated so that every point is held out once. Both modalities have the same
    weight in training, and the accuracy is the mean of the accuracies of both. A text and a video with the same vector
    are held out together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    points = torch.cat([texts, videos])
    modality = np.repeat([0, 1], [len(texts), len(videos)])
    split = PredefinedSplit(_folds(first_appearances(points)[1].numpy(), modality, seed))
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    predicted = cross_val_predict(model, points.numpy(), modality, cv=split)
    return float(balanced_accuracy_score(modality, predicted))


def _folds(vector: np.ndarray, modality: np.ndarray, seed: int) -> np.ndarray:
    """The fold (N,) of each point, by the number of its vector.

    The vectors are assigned to folds in turn: those of texts first, then those of both modalities, then those of
    videos. The vectors of one modality are thus consecutive and never all in one fold. Two distinct vectors of each
    modality are enough for every training set to have both modalities.
    """
    is_text, is_video = (np.bincount(vector[modality == side], minlength=vector.max() + 1) > 0 for side in (0, 1))
    shuffled = np.random.default_rng(seed).permutation(len(is_text))
    order = shuffled[np.argsort((is_video.astype(int) - is_text)[shuffled], kind="stable")]
    fold = np.empty_like(order)
    fold[order] = np.arange(len(order)) % FOLDS
    return fold[vector]


def _pairs(x: Cloud, y: Cloud, weight_x: Tensor, weight_y: Tensor) -> Tensor:
    """The total weight (B,) of the pairs of points in `mean_kernel`, for each resample."""
    in_group = torch.bincount(y.group, minlength=int(x.group.max()) + 1)[x.group].double()
    in_label = torch.bincount(y.label, minlength=int(x.label.max()) + 1)[x.label].double()
    between = weight_x.sum(dim=1) * weight_y.sum(dim=1) - weight_x.square() @ in_group
    return between + weight_x @ (in_group - in_label)


def _equal_pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of an index into x (n,) and an index into y (m,) with equal numbers, as two columns."""
    ordered, order = y.sort()
    first, last = torch.searchsorted(ordered, x), torch.searchsorted(ordered, x, right=True)
    counts = last - first
    row = torch.arange(len(x)).repeat_interleave(counts)
    nth = torch.arange(len(row)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return row, order[first.repeat_interleave(counts) + nth]


def _frechet(mean_a: Tensor, factor_a: Tensor, mean_b: Tensor, factor_b: Tensor) -> float:
    """The Frechet distance from means (d,) and factors F (d, any) of the covariances F F'."""
    root = torch.linalg.svdvals(factor_a.T @ factor_b).sum()
    squared = (mean_a - mean_b).square().sum() + factor_a.square().sum() + factor_b.square().sum() - 2 * root
    return max(0.0, float(squared))


def _factor_of(points: Tensor) -> Tensor:
    """F with F F' = the covariance of points (n, d): the scaled centred points themselves if n <= d."""
    count, dim = points.shape
    if count <= dim:
        return (points - points.mean(dim=0)).T / (count - 1) ** 0.5
    return _factor(torch.cov(points.T).reshape(dim, dim))


def _factor(covariance: Tensor) -> Tensor:
    """F (d, d) with F F' = C; rounding may have made the positive semi-definite C slightly indefinite."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()

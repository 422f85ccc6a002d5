"""Linear maps of unit vectors: the gap axis with the strongest directions across it, and principal components."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

NO_GAP = 1e-6
"""Smaller distances between unit vectors, or between their centroids, are only float32 rounding."""


@dataclass(frozen=True, eq=False)
class Axes:
    """A linear map: points (n, d) to coordinates (n, k), float32.

    Attributes:
        kind: "linear" or "pca".
        origin: (d,) the point with coordinates 0.
        directions: (k, d) orthonormal.
        labels: a name for each axis.
        parameters: JSON values: {"gap": distance of the centroids} or {"shares": each component's of the variance}.
        note: the reason if `kind` is not the requested one, or None.
    """

    kind: str
    origin: np.ndarray
    directions: np.ndarray
    labels: tuple[str, ...]
    parameters: dict[str, Any]
    note: str | None = None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.origin) @ self.directions.T).astype(np.float32)


def gap_axes(texts: np.ndarray, videos: np.ndarray, dimensions: int) -> Axes:
    """The gap axis, from texts (N, d) to videos (V, d), and the strongest directions across it.

    The gap is the difference of the centroids (Liang et al. 2022), and the origin is its midpoint. Across the gap both
    centroids coincide, so centring each modality is the same as centring all points. All points have the same weight,
    so the larger modality has more influence on the strongest directions. If the centroids coincide, there is no gap
    axis, and the principal axes replace it.
    """
    ends = [points.mean(axis=0, dtype=np.float64) for points in (texts, videos)]
    gap = float(np.linalg.norm(ends[1] - ends[0]))
    landmarks = np.vstack([texts, videos])
    if gap < NO_GAP:
        note = "Texts and videos have the same centroid: there is no gap axis, and this is the PCA view."
        return replace(principal_axes(landmarks, dimensions), note=note)
    origin, direction = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / gap
    across = landmarks - origin
    across -= np.outer(across @ direction, direction)
    strongest = _components(across, dimensions - 1).components_
    strongest = strongest - np.outer(strongest @ direction, direction)  # not orthogonal yet if its variance is 0
    labels = ("gap axis", "strongest direction across it", "second strongest direction across it")[:dimensions]
    return Axes("linear", origin, np.vstack([direction, _signed(strongest, across)]), labels, {"gap": gap})


def principal_axes(landmarks: np.ndarray, dimensions: int) -> Axes:
    """The principal components of texts and videos together (n, d)."""
    fitted = _components(landmarks, dimensions)
    shares = [float(share) for share in fitted.explained_variance_ratio_]
    labels = tuple(f"component {place} ({100 * share:.0f} %)" for place, share in enumerate(shares, 1))
    directions = _signed(fitted.components_, landmarks - fitted.mean_)
    return Axes("pca", fitted.mean_, directions, labels, {"shares": shares})


def _components(points: np.ndarray, count: int) -> PCA:
    """Exact principal components, by the smaller of the two decompositions."""
    solver = "covariance_eigh" if len(points) > points.shape[1] else "full"
    return PCA(n_components=count, svd_solver=solver).fit(points)


def _signed(directions: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Directions (k, d) with their signs fixed: the point farthest out on each has a positive coordinate."""
    along = points @ directions.T
    farthest = along[np.abs(along).argmax(axis=0), np.arange(len(directions))]
    return directions * np.where(farthest < 0, -1, 1)[:, None]

"""Input of the gap measures: validated pairs of embeddings as unit vectors, and their distinct points."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from dits.common.errors import InputError, require

SAMPLE_ABOVE = 10_000
"""Maximum number of points of a modality for measures that compare all points, or train on them."""

SAME_WITHIN = 2e-6
"""Unit vectors are the same point if their projections to `PROJECTED_DIM` dimensions are this close. In 512 dimensions
this is a distance of about 1e-5. An encoder's output for one input differs slightly between batches."""

PROJECTED_DIM = 8


@dataclass(frozen=True)
class Points:
    """The n distinct points of one modality, in the order in which they first appear among the pairs.

    Attributes:
        units: (n, d) unit vectors in double precision.
        row: (n,) the first pair of each point.
        video: (n,) the number of each point's video, in order of first appearance. A text that several videos share
            belongs to the first of them.
    """

    units: Tensor
    row: Tensor
    video: Tensor

    def __len__(self) -> int:
        return len(self.units)

    def sample(self, seed: int) -> "Points":
        """At most `SAMPLE_ABOVE` of the points, drawn at random and in their order."""
        size = sample_size(len(self))
        if size is None:
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=size, replace=False)
        rows = torch.from_numpy(np.sort(drawn))
        return Points(self.units[rows], self.row[rows], self.video[rows])


def check_pairs(texts: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
    """The given texts (N, d) and their videos (N, d), after validation.

    Raises:
        InputError: they are not two tables of floating-point numbers of the same shape, there is a single pair, a value
            is not finite, a vector is zero, or all texts or all videos have the same direction.
    """
    for name, points in (("texts", texts), ("videos", videos)):
        require(
            points.ndim == 2 and points.is_floating_point(),
            f"The {name} must be a table (N, d) of floating-point numbers, not {points.dtype} of shape "
            f"{tuple(points.shape)}.",
        )
    (count, dim), (videos_count, videos_dim) = texts.shape, videos.shape
    require(
        count == videos_count,
        f"There are {count} texts and {videos_count} videos: give one video for each text, and repeat a video that "
        "has several texts.",
    )
    require(
        dim == videos_dim, f"The texts have {dim} dimensions and the videos {videos_dim}: take both from one encoder."
    )
    require(count >= 2, f"The modality gap needs at least two pairs of text and video, not {count}.")
    for name, points in (("text", texts), ("video", videos)):
        _check_rows(name, points)
    return texts, videos


def unit(points: Tensor) -> Tensor:
    """Rows (N, d) of any length but 0, normalised to length 1 in double precision on the CPU."""
    points = points.detach().cpu().double()
    points = points / points.abs().amax(dim=-1, keepdim=True)
    return points / points.norm(dim=-1, keepdim=True) + 0.0  # no negative zeros: equal points have equal bytes


def distinct_points(texts: Tensor, videos: Tensor) -> tuple[Points, Points]:
    """The distinct texts and the distinct videos of paired unit vectors (N, d): a repeated vector is one point."""
    (text_row, _), (video_row, video_of) = first_appearances(texts), first_appearances(videos)
    _require_several("text", len(text_row) > 1)
    _require_several("video", len(video_row) > 1)
    return (
        Points(texts[text_row], text_row, video_of[text_row]),
        Points(videos[video_row], video_row, torch.arange(len(video_row))),
    )


def sample_size(points: int) -> int | None:
    """The sample size for a modality with this number of distinct points; None if all points are used."""
    return SAMPLE_ABOVE if points > SAMPLE_ABOVE else None


def first_appearances(units: Tensor) -> tuple[Tensor, Tensor]:
    """The row (n,) where each distinct unit vector of (N, d) first appears, and the number (N,) of each row's vector.

    The numbers follow the order of first appearance. Vectors that differ only by rounding are the same (`SAME_WITHIN`).
    Equal vectors are found by their bytes. Close ones among the rest are found in a projection to a few random
    directions, where distinct points do not coincide.
    """
    rows = np.ascontiguousarray(units.numpy())
    first, number = index_of_distinct(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel())
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((rows.shape[1], PROJECTED_DIM)))[0]
    pairs = cKDTree(rows[first.numpy()] @ axes).query_pairs(SAME_WITHIN, output_type="ndarray")
    if not len(pairs):
        return first, number
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(first), len(first)))
    return index_of_distinct(connected_components(links, directed=False)[1][number])


def index_of_distinct(keys: np.ndarray) -> tuple[Tensor, Tensor]:
    """The index (n,) where each distinct row first appears, and the number (N,) of each row's value in that order."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True, axis=0)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return torch.from_numpy(first[order]), torch.from_numpy(number[inverse.ravel()])


def _check_rows(name: str, points: Tensor) -> None:
    finite = points.isfinite().all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise InputError(f"The {name} embedding in row {row} (counted from 0) has a value that is not finite.")
    zero = (points == 0).all(dim=1)
    if zero.any():
        row = int(zero.nonzero()[0])
        raise InputError(f"The {name} embedding in row {row} (counted from 0) is zero, without a direction: remove it.")
    units = unit(points)
    _require_several(name, bool(((units - units[0]).abs() > SAME_WITHIN).any()))


def _require_several(name: str, several: bool) -> None:
    require(
        several,
        f"The modality gap needs at least two distinct texts and two distinct videos: all {name} embeddings have "
        "the same direction.",
    )

"""What the gap measures are taken of: checked pairs of embeddings, as unit vectors, and their different points."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from dits.common.errors import InputError, require

SAMPLE_ABOVE = 10_000
"""Measures that compare all points with all, or train on them, look at no more than so many of one modality."""

SAME_WITHIN = 2e-6
"""Unit vectors are one point if their projections to `PROJECTED_DIM` dimensions are this close, which they are at a
distance of about 1e-5 in 512: an encoder gives one input slightly different digits in different batches."""

PROJECTED_DIM = 8


@dataclass(frozen=True)
class Points:
    """The n different points of one modality, in the order in which they first appear among the pairs.

    Attributes:
        units: (n, d) unit vectors in double precision.
        row: (n,) the first pair that each appears in.
        video: (n,) the number of the video that each belongs to, counted by first appearance. A text that several
            videos share belongs to the first of them.
    """

    units: Tensor
    row: Tensor
    video: Tensor

    def __len__(self) -> int:
        return len(self.units)

    def sample(self, seed: int) -> "Points":
        """The same points, or `SAMPLE_ABOVE` of them drawn at random, still in order, where there are more."""
        size = sampled(len(self))
        if size is None:
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=size, replace=False)
        kept = torch.from_numpy(np.sort(drawn))
        return Points(self.units[kept], self.row[kept], self.video[kept])


def checked(texts: Tensor, videos: Tensor) -> tuple[Tensor, Tensor]:
    """The texts (N, d) and the videos that belong to them (N, d), as they are, if a gap can be measured between them.

    Raises:
        InputError: they are not two tables of floating-point numbers of one shape, there is a single pair, a value is
            not finite, a vector is zero, or all texts or all videos point the same way.
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
        f"There are {count} texts and {videos_count} videos: give each text the video that belongs to it, once for "
        "each of its texts.",
    )
    require(
        dim == videos_dim,
        f"The texts have {dim} dimensions and the videos {videos_dim}: take both from one encoder.",
    )
    require(count >= 2, f"The modality gap needs at least two pairs of text and video, not {count}.")
    for name, points in (("text", texts), ("video", videos)):
        _check_rows(name, points)
    return texts, videos


def unit(points: Tensor) -> Tensor:
    """Rows (N, d) at length 1 in double precision, on the CPU; of any length but 0, however large or small."""
    points = points.detach().cpu().double()
    points = points / points.abs().amax(dim=-1, keepdim=True)
    return points / points.norm(dim=-1, keepdim=True) + 0.0  # no negative zeros: equal points have equal bytes


def different_points(texts: Tensor, videos: Tensor) -> tuple[Points, Points]:
    """The different texts and the different videos of paired unit vectors (N, d): a repeated vector is one point."""
    (text_row, _), (video_row, video_of) = first_appearances(texts), first_appearances(videos)
    _require_several("text", len(text_row) > 1)
    _require_several("video", len(video_row) > 1)
    return (
        Points(texts[text_row], text_row, video_of[text_row]),
        Points(videos[video_row], video_row, torch.arange(len(video_row))),
    )


def sampled(points: int) -> int | None:
    """How many of so many different points of one modality the sampling measures look at; None: at all of them."""
    return SAMPLE_ABOVE if points > SAMPLE_ABOVE else None


def first_appearances(units: Tensor) -> tuple[Tensor, Tensor]:
    """Of unit vectors (N, d): where each different one first stands (n,), and each one's number (N,) in that order.

    Vectors that differ by rounding alone are one (`SAME_WITHIN`). Equal ones are found by their bytes; close ones, of
    those that are left, in a projection to a few random directions, where points that differ do not meet.
    """
    rows = np.ascontiguousarray(units.numpy())
    first, number = numbered(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel())
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((rows.shape[1], PROJECTED_DIM)))[0]
    pairs = cKDTree(rows[first.numpy()] @ axes).query_pairs(SAME_WITHIN, output_type="ndarray")
    if not len(pairs):
        return first, number
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(first), len(first)))
    return numbered(connected_components(links, directed=False)[1][number])


def numbered(keys: np.ndarray) -> tuple[Tensor, Tensor]:
    """The same of keys (N,): where each different one first stands (n,), and each one's number (N,) in that order."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return torch.from_numpy(first[order]), torch.from_numpy(number[inverse])


def _check_rows(name: str, points: Tensor) -> None:
    finite = points.isfinite().all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise InputError(f"The {name} embedding in row {row} (counted from 0) holds a value that is not finite.")
    zero = (points == 0).all(dim=1)
    if zero.any():
        row = int(zero.nonzero()[0])
        raise InputError(
            f"The {name} embedding in row {row} (counted from 0) is zero and points nowhere: leave it out."
        )
    units = unit(points)
    _require_several(name, bool(((units - units[0]).abs() > SAME_WITHIN).any()))


def _require_several(name: str, several: bool) -> None:
    require(
        several,
        f"The modality gap needs at least two different texts and two different videos: all {name} embeddings point "
        "the same way.",
    )

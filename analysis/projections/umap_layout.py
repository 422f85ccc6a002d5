"""UMAP layouts of points, and new points on a layout that is published already.

umap-learn takes seconds to import and to compile, so it is imported where it fits.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from dits.common.errors import require

EXACT_NEIGHBOURS = 20_000
"""Up to so many points the neighbours are exact; beyond, umap-learn's own approximate search finds them."""

REFIT_EPOCHS, REFIT_LEARNING_RATE = 20, 0.003
"""A gentle refit. Ten times the rate, or several times the epochs, tears paths apart that start evenly, and moves the
landmarks four times as far."""

_BOX = 10  # umap-learn stretches what it starts from to a square box of this side

# The thread pools of numba and BLAS, and Python's warning filters, belong to the whole process.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class UmapSettings:
    """How a layout is fitted.

    Attributes:
        seed: of the random numbers: the same seed gives the same layout, bit by bit, on one machine.
        neighbours: how many nearest points, itself included, make up a point's neighbourhood.
        min_distance: how close to each other two points may be drawn, where neighbours are about 1 apart.
    """

    seed: int = 0
    neighbours: int = 15
    min_distance: float = 0.1

    def __post_init__(self) -> None:
        require(_whole(self.seed) and 0 <= self.seed < 2**32, f"A seed is a whole number from 0; {self.seed} is not.")
        require(_whole(self.neighbours) and self.neighbours >= 2, "UMAP needs at least 2 neighbours.")
        distance = self.min_distance
        known = isinstance(distance, int | float) and not isinstance(distance, bool) and 0 <= distance <= 1
        require(known, f"The smallest distance drawn lies between 0 and 1; {distance} does not.")


@contextmanager
def reproducibly() -> Iterator[None]:
    """What is computed here comes out the same to the last bit, whatever number of threads BLAS has: it gets one.

    Last bits are enough for UMAP to draw another map. Where a layout starts is to be computed here, too. One thread of
    the process at a time.
    """
    with _ONE_AT_A_TIME, threadpool_limits(1, user_api="blas"):
        yield


@reproducibly()
def lay_out(points: np.ndarray, start: np.ndarray, settings: UmapSettings) -> np.ndarray:
    """Coordinates (n, k) of unit vectors (n, d), fitted jointly from the coordinates (n, k) they start at.

    Points that coincide are fitted, and drawn, as one.

    Raises:
        InputError: there are no more points than neighbours.
    """
    first, same = _distinct(points)
    return _fit(points[first], start[first], settings)[same]


@reproducibly()
def place(
    points: np.ndarray, layout: np.ndarray, paths: np.ndarray, landmarks: int, settings: UmapSettings
) -> tuple[np.ndarray, dict[str, float]]:
    """Coordinates of new paths (S, P, d) on the layout (n, k) of points (n, d), which keeps its place. Unit vectors.

    Everything is fitted again, the old points from where they are and the new ones from among their neighbours. The
    new layout is then turned, scaled and shifted so that its landmarks, the first of the points, come to lie on the
    published ones as well as they can (orthogonal Procrustes). A path that begins at an old point is at last shifted
    as a whole by what is still missing there, so that it begins where that point is drawn.

    Returns:
        The coordinates (S, P, k), and how far the landmarks lie from their published places after the registration:
        median and 95th percentile, as shares of the diagonal of the published landmarks' bounding box.
    """
    everything = np.vstack([points, paths.reshape(-1, paths.shape[-1])])
    start = np.vstack([layout, _among_neighbours(points, layout, everything[len(points) :], settings.neighbours)])
    first, same = _distinct(everything)
    refit = _fit(everything[first], start[first], settings, n_epochs=REFIT_EPOCHS, learning_rate=REFIT_LEARNING_RATE)
    refit *= np.ptp(start, axis=0) / _BOX
    registered = _register(refit[same], layout[:landmarks])
    moved = np.linalg.norm(registered[:landmarks] - layout[:landmarks], axis=1)
    moved /= np.linalg.norm(np.ptp(layout[:landmarks], axis=0))
    movement = {"median": float(np.median(moved)), "p95": float(np.quantile(moved, 0.95))}

    drawn = registered[len(points) :].reshape(*paths.shape[:2], -1)
    begins_at = first[same][len(points) :].reshape(paths.shape[:2])[0]
    for path, old in enumerate(begins_at):
        if old < len(points):
            drawn[:, path] += layout[old] - drawn[0, path]
    return drawn.astype(np.float32), movement


def _fit(points: np.ndarray, start: np.ndarray, settings: UmapSettings, **options: Any) -> np.ndarray:
    count = settings.neighbours
    require(
        len(points) > count,
        f"UMAP with {count} neighbours needs more than {count} different points, and there are {len(points)}: "
        "ask for fewer neighbours.",
    )
    if len(points) <= EXACT_NEIGHBOURS:  # half the time of umap-learn's own search, compilation included
        options["precomputed_knn"] = (*_nearest(points, count), None)
    with _threads_kept(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"precomputed_knn\[2\]")  # transform is not wanted
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=count,
            n_components=start.shape[1],
            min_dist=settings.min_distance,
            metric="cosine",
            random_state=settings.seed,
            n_jobs=1,  # what a seed forces anyway, with a warning
            init=start.astype(np.float32),
            disconnection_distance=np.inf,  # opposite points are far apart, not absent
            **options,
        )
        return reducer.fit_transform(points)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """PyTorch's number of threads stays: numba's thread pool, as it starts, sets it to its own."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each different point first stands, in that order, and which of them every point is."""
    _, first, which = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place_of = np.empty_like(order)
    place_of[order] = np.arange(len(order))
    return first[order], place_of[which.ravel()]


def _nearest(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest of every point, itself first, and their cosine distances: both (n, count)."""
    search = NearestNeighbors(n_neighbors=count - 1, metric="cosine", algorithm="brute").fit(points)
    distances, indices = search.kneighbors()
    own = np.arange(len(points))[:, None]
    return (
        np.hstack([own, indices]).astype(np.int32),
        np.hstack([np.zeros_like(own), distances]).astype(np.float32),
    )


def _among_neighbours(points: np.ndarray, layout: np.ndarray, new: np.ndarray, count: int) -> np.ndarray:
    """Where new points (m, d) start: each at the mean of its nearest neighbours, weighted by 1 / distance.

    The new ones are each other's neighbours too, so this is one linear system. A path that crosses empty space is thus
    spread over it; the old neighbours alone would put its points beside either end.
    """
    to_old, to_new = cdist(new, points), cdist(new, new)
    np.fill_diagonal(to_new, np.inf)
    old_weights, new_weights = _weights(to_old, count), _weights(to_new, count)
    system = np.diag(old_weights.sum(axis=1) + new_weights.sum(axis=1)) - new_weights
    return np.linalg.solve(system, old_weights @ layout)


def _weights(distances: np.ndarray, count: int) -> np.ndarray:
    """1 / distance for the `count` nearest of every row, 0 for the others."""
    count = min(count, distances.shape[1])
    farthest = np.partition(distances, count - 1, axis=1)[:, count - 1 : count]
    return np.where(distances <= farthest, 1 / np.maximum(distances, 1e-6), 0.0)


def _register(refit: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The refit layout (n, k), turned, scaled and shifted so that its first points lie best on the landmarks (m, k)."""
    moved = refit[: len(landmarks)].astype(np.float64)
    centre, target = moved.mean(axis=0), landmarks.mean(axis=0, dtype=np.float64)
    rotation, overlap = orthogonal_procrustes(moved - centre, landmarks - target)
    scale = overlap / np.square(moved - centre).sum()
    return (refit - centre) @ rotation * scale + target


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""UMAP layouts of points, and new points on an existing layout.

umap-learn needs seconds to import and to compile, so it is imported only for a fit.
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

from analysis.measures.points import index_of_distinct
from dits.common.errors import require

EXACT_NEIGHBOURS = 20_000
"""Maximum number of points with an exact neighbour search; for more, umap-learn searches approximately."""

REFIT_EPOCHS, REFIT_LEARNING_RATE = 20, 0.003
"""A gentle refit. Ten times the rate, or several times the epochs, tears even paths apart and moves the landmarks four
times as far."""

_BOX = 10  # umap-learn scales its initial coordinates to a square box of this side

# The thread pools of numba and BLAS, and Python's warning filters, are global to the process.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class UmapSettings:
    """Settings of a UMAP fit.

    Attributes:
        seed: the same seed gives the same layout, to the bit, on one machine.
        neighbours: number of points in a neighbourhood, including the point itself.
        min_distance: minimum distance of two points on the map, if neighbours are about 1 apart.
    """

    seed: int = 0
    neighbours: int = 15
    min_distance: float = 0.1

    def __post_init__(self) -> None:
        require(_whole(self.seed) and 0 <= self.seed < 2**32, f"A seed is a whole number from 0; {self.seed} is not.")
        require(_whole(self.neighbours) and self.neighbours >= 2, "UMAP needs at least 2 neighbours.")
        distance = self.min_distance
        valid = isinstance(distance, int | float) and not isinstance(distance, bool) and 0 <= distance <= 1
        require(valid, f"The minimum distance must be between 0 and 1; {distance} is not.")


@contextmanager
def reproducibly() -> Iterator[None]:
    """Makes results independent of BLAS's number of threads, to the last bit, by limiting it to one.

    Different last bits can change a UMAP layout, so compute its initial coordinates within this context too. Only one
    thread of the process enters at a time.
    """
    with _ONE_AT_A_TIME, threadpool_limits(1, user_api="blas"):
        yield


@reproducibly()
def lay_out(points: np.ndarray, start: np.ndarray, settings: UmapSettings) -> np.ndarray:
    """Coordinates (n, k) of unit vectors (n, d), fitted from initial coordinates (n, k).

    Equal points are fitted as one point and get the same coordinates.

    Raises:
        InputError: there are no more points than neighbours.
    """
    first, number = _distinct(points)
    return _fit(points[first], start[first], settings)[number]


@reproducibly()
def place(
    points: np.ndarray, layout: np.ndarray, paths: np.ndarray, landmarks: int, settings: UmapSettings
) -> tuple[np.ndarray, dict[str, float]]:
    """Coordinates of new paths (S, P, d) on the fixed layout (n, k) of points (n, d), all unit vectors.

    All points are fitted again: the old ones start at their coordinates, the new ones among their neighbours. The new
    layout is then rotated, scaled and shifted so that its landmarks, the first of the points, match those of the old
    layout as well as possible (orthogonal Procrustes). Finally, a path that starts at an old point is shifted to start
    exactly at that point's old coordinates.

    Returns:
        The coordinates (S, P, k), and the distances of the landmarks from their old coordinates after the registration:
        median and 95th percentile, as shares of the diagonal of the old landmarks' bounding box.
    """
    everything = np.vstack([points, paths.reshape(-1, paths.shape[-1])])
    start = np.vstack([layout, _among_neighbours(points, layout, everything[len(points) :], settings.neighbours)])
    first, number = _distinct(everything)
    refit = _fit(everything[first], start[first], settings, n_epochs=REFIT_EPOCHS, learning_rate=REFIT_LEARNING_RATE)
    refit *= np.ptp(start, axis=0) / _BOX
    registered = _register(refit[number], layout[:landmarks])
    moved = np.linalg.norm(registered[:landmarks] - layout[:landmarks], axis=1)
    moved /= np.linalg.norm(np.ptp(layout[:landmarks], axis=0))
    movement = {"median": float(np.median(moved)), "p95": float(np.quantile(moved, 0.95))}

    drawn = registered[len(points) :].reshape(*paths.shape[:2], -1)
    starts = first[number][len(points) :].reshape(paths.shape[:2])[0]
    for path, old in enumerate(starts):
        if old < len(points):
            drawn[:, path] += layout[old] - drawn[0, path]
    return drawn.astype(np.float32), movement


def _fit(points: np.ndarray, start: np.ndarray, settings: UmapSettings, **options: Any) -> np.ndarray:
    count = settings.neighbours
    require(
        len(points) > count,
        f"UMAP with {count} neighbours needs more than {count} different points, and there are {len(points)}: "
        "choose fewer neighbours.",
    )
    if len(points) <= EXACT_NEIGHBOURS:  # half the time of umap-learn's own search, compilation included
        options["precomputed_knn"] = (*_nearest(points, count), None)
    with _torch_threads_restored(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"precomputed_knn\[2\]")  # only `transform` needs it
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=count,
            n_components=start.shape[1],
            min_dist=settings.min_distance,
            metric="cosine",
            random_state=settings.seed,
            n_jobs=1,  # a seed forces this anyway, with a warning
            init=start.astype(np.float32),
            disconnection_distance=np.inf,  # keep opposite points, which are just far apart
            **options,
        )
        return reducer.fit_transform(points)


@contextmanager
def _torch_threads_restored() -> Iterator[None]:
    """Restores PyTorch's number of threads, which numba's thread pool changes when it starts."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, number = index_of_distinct(points)
    return first.numpy(), number.numpy()


def _nearest(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest points of every point, itself first, and their cosine distances: both (n, count)."""
    search = NearestNeighbors(n_neighbors=count - 1, metric="cosine", algorithm="brute").fit(points)
    distances, indices = search.kneighbors()
    own = np.arange(len(points))[:, None]
    return (np.hstack([own, indices]).astype(np.int32), np.hstack([np.zeros_like(own), distances]).astype(np.float32))


def _among_neighbours(points: np.ndarray, layout: np.ndarray, new: np.ndarray, count: int) -> np.ndarray:
    """Initial coordinates of new points (m, d): the mean of their nearest neighbours, weighted by 1 / distance.

    New points are also neighbours of each other, so this is a linear system. It spreads a path that crosses empty space
    evenly; with old neighbours alone, its points would lie beside either end.
    """
    to_old, to_new = cdist(new, points), cdist(new, new)
    np.fill_diagonal(to_new, np.inf)
    old_weights, new_weights = _weights(to_old, count), _weights(to_new, count)
    system = np.diag(old_weights.sum(axis=1) + new_weights.sum(axis=1)) - new_weights
    return np.linalg.solve(system, old_weights @ layout)


def _weights(distances: np.ndarray, count: int) -> np.ndarray:
    """1 / distance for the `count` nearest points of every row, 0 for the others."""
    count = min(count, distances.shape[1])
    farthest = np.partition(distances, count - 1, axis=1)[:, count - 1 : count]
    return np.where(distances <= farthest, 1 / np.maximum(distances, 1e-6), 0.0)


def _register(refit: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The refit layout (n, k), rotated, scaled and shifted so that its first points best match the landmarks (m, k)."""
    moved = refit[: len(landmarks)].astype(np.float64)
    centre, target = moved.mean(axis=0), landmarks.mean(axis=0, dtype=np.float64)
    rotation, overlap = orthogonal_procrustes(moved - centre, landmarks - target)
    scale = overlap / np.square(moved - centre).sum()
    return (refit - centre) @ rotation * scale + target


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

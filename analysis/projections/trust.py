"""Trust measures of a map: how well it keeps neighbourhoods and steps, and how much it depends on the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import procrustes
from sklearn.manifold import trustworthiness

from analysis.projections.projection import Cloud, Map
from dits.common.errors import require

MAX_POINTS = 2000
"""Maximum number of texts and videos for both neighbourhood measures, which are quadratic; more are sampled."""

_WELL, _ROUGHLY = 0.95, 0.85
_SAME_STEP = 0.1  # maximum difference of a step's drawn and true share that is not reported as a distortion


@dataclass(frozen=True)
class Trust:
    """Trust measures of a map.

    Attributes:
        kind: the map's kind.
        trustworthiness: 1 if all points drawn close together are close. Each false neighbour on the map lowers it by
            its true rank (Venna and Kaski 2001). Texts and videos, by cosine.
        continuity: 1 if all close points are drawn close together: the same with the two spaces exchanged.
        neighbours: number of neighbours of each point for both measures.
        points: number of texts and videos for both measures.
        sampled: whether these are a random sample.
        largest_step_drawn: the share of the largest step in a path's length on the map, median over the paths; None if
            no path moves.
        largest_step_true: the same in the full space, between unit vectors.
        seed_spread: mean Procrustes disparity of the landmarks over all pairs of maps of different seeds: 0 for equal
            shapes, 1 if they have nothing in common. None if nothing is random or there is a single map.
    """

    kind: str
    trustworthiness: float
    continuity: float
    neighbours: int
    points: int
    sampled: bool
    largest_step_drawn: float | None
    largest_step_true: float | None
    seed_spread: float | None

    def sentence(self) -> str:
        """The trust measures in one plain sentence."""
        parts = [self._neighbourhoods(), self._steps()]
        if self.seed_spread is not None:
            parts.append(f"maps of other seeds differ by {self.seed_spread:.2f} (0: same shape, 1: nothing in common)")
        distances = {
            "linear": "lengths along the gap axis are true, and no distance is drawn longer than its true length",
            "pca": "no distance is drawn longer than its true length",
            "umap": "distances between clouds mean nothing",
        }
        return "; ".join(filter(None, [*parts, distances[self.kind]])) + "."

    def _neighbourhoods(self) -> str:
        worst = min(self.trustworthiness, self.continuity)
        degree = "well" if worst >= _WELL else "roughly" if worst >= _ROUGHLY else "poorly"
        sample = f", on {self.points} points drawn at random" if self.sampled else ""
        values = f"trustworthiness {self.trustworthiness:.2f}, continuity {self.continuity:.2f}, 1 is perfect{sample}"
        return f"This map keeps neighbourhoods {degree} ({values})"

    def _steps(self) -> str:
        drawn, true = self.largest_step_drawn, self.largest_step_true
        if drawn is None or true is None:
            return ""
        warning = "" if abs(drawn - true) < _SAME_STEP else ", so do not read the size of steps off the map"
        return (
            f"the largest step of a path is {100 * drawn:.0f} % of its drawn length and {100 * true:.0f} % of its true "
            f"length{warning}"
        )


def trust(cloud: Cloud, map: Map, *, neighbours: int = 15, maps_of_other_seeds: Sequence[Map] = ()) -> Trust:
    """The trust measures of the cloud's map.

    Args:
        neighbours: number of neighbours of each point; fewer in a small cloud, since both measures need less than half
            of the points.
        maps_of_other_seeds: maps of the same cloud, kind and dimensions.

    Raises:
        InputError: fewer than one neighbour, or a map is of another cloud or kind.
    """
    require(neighbours >= 1, f"Neighbourhoods have at least one neighbour, not {neighbours}.")
    for other in (map, *maps_of_other_seeds):
        require(other.fits(cloud), "A map is of another cloud: project this cloud first.")
        same = (other.kind, other.dimensions) == (map.kind, map.dimensions)
        require(same, "Maps of different seeds can only be compared if they have the same kind and dimension.")
    full, drawn = cloud.landmarks(), map.landmarks()
    total = len(full)
    if total > MAX_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(total, MAX_POINTS, replace=False))
        full, drawn = full[chosen], drawn[chosen]
    count = min(neighbours, (len(full) - 1) // 2)
    return Trust(
        kind=map.kind,
        trustworthiness=float(trustworthiness(full, drawn, n_neighbors=count, metric="cosine")),
        continuity=float(trustworthiness(drawn, full, n_neighbors=count)),  # the order of cosines, for unit vectors
        neighbours=count,
        points=len(full),
        sampled=len(full) < total,
        largest_step_drawn=largest_step(map.paths),
        largest_step_true=largest_step(cloud.steps()),
        seed_spread=_spread([map, *maps_of_other_seeds]) if map.kind == "umap" and maps_of_other_seeds else None,
    )


def largest_step(paths: np.ndarray) -> float | None:
    """The share of the largest step in a path's length, median over paths (S, Q, k); None if no path moves."""
    lengths = np.linalg.norm(np.diff(paths.astype(np.float64), axis=0), axis=-1)
    total = lengths.sum(axis=0)
    moving = total > 0
    if not moving.any():
        return None
    return float(np.median(lengths.max(axis=0)[moving] / total[moving]))


def _spread(maps: Sequence[Map]) -> float:
    pairs = combinations([map.landmarks() for map in maps], 2)
    return float(np.mean([procrustes(first, second)[2] for first, second in pairs]))

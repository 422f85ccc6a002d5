"""How far to trust a map: what it does to neighbourhoods and to paths, and how much of it hangs on the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.spatial import procrustes
from sklearn.manifold import trustworthiness

from analysis.projections.projection import Cloud, Map
from dits.common.errors import require

MAX_POINTS = 2000
"""Both measures of neighbourhoods are quadratic: of more texts and videos, so many are drawn at random."""

_WELL, _ROUGHLY = 0.95, 0.85
_SAME_STEP = 0.1  # shares of a path that differ by less are drawn about right


@dataclass(frozen=True)
class Trust:
    """Figures of trust of one map.

    Attributes:
        kind: the map's.
        trustworthiness: 1 where whatever is drawn close is close; each intruder among a point's drawn neighbours costs
            by how far down its true ranking it stands (Venna and Kaski 2001). Texts and videos, by cosine.
        continuity: 1 where whatever is close is drawn close: the same with the two spaces exchanged.
        neighbours: how many neighbours of each point both look at.
        points: on how many texts and videos both were measured.
        sampled: whether that is a random sample of them.
        largest_step_drawn: the share of a path's drawn length that falls in its largest step, median over the paths;
            None without paths that move.
        largest_step_true: the same in the full space, between unit vectors.
        seed_spread: mean Procrustes disparity of the landmarks over all pairs of maps of different seeds: 0 where they
            have one shape, 1 where they have nothing in common; None where nothing is random or no others were given.
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
        """How far to trust the map, in one plain sentence."""
        parts = [self._neighbourhoods(), self._steps(), self._seeds(), self._distances()]
        return "; ".join(part for part in parts if part) + "."

    def _neighbourhoods(self) -> str:
        worst = min(self.trustworthiness, self.continuity)
        how = "well" if worst >= _WELL else "roughly" if worst >= _ROUGHLY else "poorly"
        sample = f", on {self.points} points drawn at random" if self.sampled else ""
        figures = f"trustworthiness {self.trustworthiness:.2f}, continuity {self.continuity:.2f}, 1 is perfect{sample}"
        return f"This map keeps neighbourhoods {how} ({figures})"

    def _steps(self) -> str:
        drawn, true = self.largest_step_drawn, self.largest_step_true
        if drawn is None or true is None:
            return ""
        shares = f"the largest step of a path takes {100 * drawn:.0f} % of its drawn length and {100 * true:.0f} % of"
        if abs(drawn - true) < _SAME_STEP:
            return f"{shares} its true one"
        return f"{shares} its true one, so do not read the size of steps off it"

    def _seeds(self) -> str:
        if self.seed_spread is None:
            return ""
        return f"maps of different seeds differ by {self.seed_spread:.2f} (0 is one shape, 1 is nothing in common)"

    def _distances(self) -> str:
        return {
            "linear": "lengths along the gap axis are true, and no distance is drawn longer than it is",
            "pca": "no distance is drawn longer than it is",
            "umap": "distances between clouds mean nothing",
        }[self.kind]


def trust(cloud: Cloud, map: Map, *, neighbours: int = 15, maps_of_other_seeds: Sequence[Map] = ()) -> Trust:
    """The figures of trust of the cloud's map.

    Args:
        neighbours: how many of a point's neighbours are looked at; fewer where the cloud is small, since both measures
            need less than half of the points.
        maps_of_other_seeds: of the same cloud, kind and dimensions.

    Raises:
        InputError: fewer than one neighbour, or a map is of another cloud or kind.
    """
    require(neighbours >= 1, f"Neighbourhoods have at least one neighbour, not {neighbours}.")
    for other in (map, *maps_of_other_seeds):
        require(other.fits(cloud), "A map is of another cloud: project this cloud first.")
        same = (other.kind, other.dimensions) == (map.kind, map.dimensions)
        require(same, "Maps of different seeds can only be compared where they are of one kind and dimension.")
    full, drawn = cloud.landmarks(), map.landmarks()
    everything = len(full)
    if everything > MAX_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(everything, MAX_POINTS, replace=False))
        full, drawn = full[chosen], drawn[chosen]
    count = min(neighbours, (len(full) - 1) // 2)
    return Trust(
        kind=map.kind,
        trustworthiness=float(trustworthiness(full, drawn, n_neighbors=count, metric="cosine")),
        continuity=float(trustworthiness(drawn, full, n_neighbors=count)),  # of unit vectors, the same order as cosine
        neighbours=count,
        points=len(full),
        sampled=len(full) < everything,
        largest_step_drawn=largest_step(map.paths),
        largest_step_true=largest_step(cloud.steps()),
        seed_spread=_spread([map, *maps_of_other_seeds]) if map.kind == "umap" and maps_of_other_seeds else None,
    )


def largest_step(paths: np.ndarray) -> float | None:
    """The share of a path's length that falls in its largest step, median over paths (S, Q, k); None if none moves."""
    lengths = np.linalg.norm(np.diff(paths.astype(np.float64), axis=0), axis=-1)
    total = lengths.sum(axis=0)
    moving = total > 0
    if not moving.any():
        return None
    return float(np.median(lengths.max(axis=0)[moving] / total[moving]))


def _spread(maps: Sequence[Map]) -> float:
    pairs = combinations([map.landmarks() for map in maps], 2)
    return float(np.mean([procrustes(first, second)[2] for first, second in pairs]))

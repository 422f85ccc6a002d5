"""Maps of texts, videos and the sampler's paths between them, in two or three dimensions.

Three kinds of map, all of unit vectors, since retrieval compares by cosine:

- linear: the gap axis (the difference of the two centroids) and what is strongest across it. It invents no structure,
  and distances along its first axis are true.
- pca: the strongest principal components of texts and videos.
- umap: neighbourhoods. Distances between its clouds mean nothing. It is fitted on texts, videos and every step of
  every path together: fitted on texts and videos alone, it draws an even path as one jump, because no point of theirs
  lies in the gap and `transform` sets every step beside one cloud or the other. Where the gap is many times wider than
  the clouds, steps of different paths are nearer to each other than to their own, and the joint fit tears paths too.

How far to trust a map is for analysis/projections/trust.py to say; analysis/projections/cache.py keeps maps.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.projections.linear import NO_GAP, Axes, gap_axes, principal_axes
from analysis.projections.umap_layout import UmapSettings, lay_out, place, reproducibly
from dits.common.errors import InputError, require

KINDS = ("linear", "pca", "umap")

MIN_POINTS_FOR_UMAP = 50
"""With fewer different texts and videos, UMAP's neighbourhoods are most of the corpus: the linear view replaces it."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """What is mapped: landmarks, which are texts (N, d) and videos (V, d), and Q paths of S points each (S, Q, d).

    Kept as float32, of whatever norm they are given in. Without paths, S may be anything and Q is 0.

    Raises:
        InputError: not numbers, NaN or infinite, a vector of zeros, shapes that do not fit, or fewer than two
            different texts or videos.
    """

    texts: np.ndarray
    videos: np.ndarray
    paths: np.ndarray

    def __post_init__(self) -> None:
        for name, axes in (("texts", 2), ("videos", 2), ("paths", 3)):
            object.__setattr__(self, name, _vectors(getattr(self, name), name, axes))
        widths = [values.shape[-1] for values in (self.texts, self.videos, self.paths)]
        require(
            len(set(widths)) == 1,
            "Texts, videos and paths must have one width, and theirs are {}, {} and {}.".format(*widths),
        )
        counts = len(self.texts), len(self.videos)
        require(min(counts) > 1, "A map needs at least two texts and two videos; there are {} and {}.".format(*counts))
        for name, points in (("texts", self.texts), ("videos", self.videos)):
            require(np.ptp(_unit(points), axis=0).max() > NO_GAP, f"All {name} are one point: there is nothing to map.")

    def landmarks(self) -> np.ndarray:
        """Texts, then videos, as unit vectors (N + V, d)."""
        return _unit(np.vstack([self.texts, self.videos]))

    def steps(self) -> np.ndarray:
        """The paths' points as unit vectors (S, Q, d)."""
        return _unit(self.paths)

    def with_paths(self, paths: np.ndarray) -> "Cloud":
        """This cloud with further paths (S, P, d), or one (S, d).

        Raises:
            InputError: they do not fit the cloud.
        """
        more = Cloud(self.texts, self.videos, paths[:, None] if np.ndim(paths) == 2 else paths).paths
        if not self.paths.shape[1]:
            return replace(self, paths=more)
        require(
            len(more) == len(self.paths),
            f"The cloud's paths have {len(self.paths)} points each, and the new one has {len(more)}.",
        )
        return replace(self, paths=np.concatenate([self.paths, more], axis=1))


@dataclass(frozen=True, eq=False)
class Map:
    """Coordinates, float32, and how they came about.

    Attributes:
        kind: which of KINDS this is; where that is not what was asked for, `note` says why.
        dimensions: k, 2 or 3.
        texts: (N, k).
        videos: (V, k).
        paths: (S, Q, k).
        parameters: JSON values: what was asked for and, by kind, the gap (linear: distance of the centroids), the
            components' shares of the variance (pca, from 0 to 1), and after `add_path` on a UMAP "landmark_movement"
            (see analysis.projections.umap_layout.place).
        axes: a label for each axis.
        note: a sentence for whoever looks at the map, or None.
    """

    kind: str
    dimensions: int
    texts: np.ndarray
    videos: np.ndarray
    paths: np.ndarray
    parameters: dict[str, Any]
    axes: tuple[str, ...]
    note: str | None = None

    def landmarks(self) -> np.ndarray:
        """Coordinates of texts, then videos (N + V, k)."""
        return np.vstack([self.texts, self.videos])

    def fits(self, cloud: Cloud) -> bool:
        """Whether the map has a place for each of the cloud's points, and no others."""
        mine = [values.shape[:-1] for values in (self.texts, self.videos, self.paths)]
        return mine == [values.shape[:-1] for values in (cloud.texts, cloud.videos, cloud.paths)]


@dataclass(frozen=True, eq=False)
class Nearest:
    """True neighbours in the full space: places of texts and of videos in the cloud, nearest first, and cosines."""

    texts: np.ndarray
    text_cosines: np.ndarray
    videos: np.ndarray
    video_cosines: np.ndarray


def project(
    cloud: Cloud,
    kind: str,
    dimensions: int = 2,
    *,
    seed: int = 0,
    neighbours: int = 15,
    min_distance: float = 0.1,
) -> Map:
    """A map of the cloud.

    Args:
        kind: one of KINDS.
        dimensions: 2 or 3.
        seed: see UmapSettings; like the next two, it says nothing to the other kinds.
        neighbours: see UmapSettings.
        min_distance: see UmapSettings.

    Raises:
        InputError: no such kind, dimensions or settings, more dimensions than the embeddings have, or fewer different
            points than dimensions or neighbours need.
    """
    require(kind in KINDS, f"There is no map of kind '{kind}': choose one of {', '.join(KINDS)}.")
    require(dimensions in (2, 3), f"A map has 2 or 3 dimensions, not {dimensions}.")
    settings = UmapSettings(seed, neighbours, min_distance)
    landmarks = cloud.landmarks()
    width, different = landmarks.shape[1], len(np.unique(landmarks, axis=0))
    require(width >= dimensions, f"Embeddings of width {width} cannot be mapped in {dimensions} dimensions.")
    require(
        different > dimensions,
        f"A map in {dimensions} dimensions needs more than {dimensions} different points, and there are {different}.",
    )
    if kind == "umap" and different >= MIN_POINTS_FOR_UMAP:
        return _umap(cloud, dimensions, settings)
    drawn = _linear(cloud, "linear" if kind == "umap" else kind, dimensions)
    if kind == "umap":
        why = (
            f"UMAP shows neighbourhoods, and {different} texts and videos are too few to have any (it takes "
            f"{MIN_POINTS_FOR_UMAP}): this is the linear view."
        )
        drawn = replace(drawn, note=" ".join(filter(None, (why, drawn.note))))
    return replace(drawn, parameters={"asked": kind} | drawn.parameters)


def add_path(cloud: Cloud, map: Map, path: np.ndarray) -> Map:
    """The map of the cloud with a further path (S, d), or several (S, P, d); whatever was on it stays where it was.

    On linear and PCA maps the axes stay the same. On a UMAP everything is fitted again, from where it is, and the new
    points are registered onto the published layout; "landmark_movement" in the map's parameters says how well that
    went (see analysis.projections.umap_layout.place). The cloud that belongs to the new map is
    `cloud.with_paths(path)`.

    Raises:
        InputError: the path does not fit the cloud, or the map is of another cloud.
    """
    require(map.fits(cloud), "This map is of another cloud: project the cloud that the path is added to.")
    whole = cloud.with_paths(path)
    new = whole.steps()[:, cloud.paths.shape[1] :]
    parameters = map.parameters
    if map.kind == "umap":
        landmarks, published = map.landmarks(), map.paths.reshape(-1, map.dimensions)
        points = np.vstack([cloud.landmarks(), _flat(cloud.steps())])
        layout = np.vstack([landmarks, published])
        added, movement = place(points, layout, new, len(landmarks), _settings_of(map))
        parameters = parameters | {"landmark_movement": movement}
    else:
        added = _axes(cloud, map.kind, map.dimensions)(new)
    paths = np.concatenate([map.paths, added], axis=1) if map.paths.shape[1] else added
    return replace(map, paths=paths, parameters=parameters)


def nearest(cloud: Cloud, point: np.ndarray, count: int) -> Nearest:
    """The `count` texts and videos nearest to a point (d,) by cosine, or all where there are fewer.

    A point that is one of the cloud's own is its own nearest, at a cosine of 1.

    Raises:
        InputError: the point is no vector of the cloud's width, or the count is below 1.
    """
    require(count >= 1, f"Ask for at least one neighbour, not {count}.")
    point = _unit(_vectors(np.reshape(point, (1, -1)), "the point", 2))[0]
    width = cloud.texts.shape[1]
    require(len(point) == width, f"The point has width {len(point)}, and the cloud has {width}.")
    found = []
    for points in (cloud.texts, cloud.videos):
        cosines = _unit(points) @ point
        best = np.argsort(-cosines, kind="stable")[:count]
        found += [best, cosines[best]]
    return Nearest(*found)


def _linear(cloud: Cloud, kind: str, dimensions: int) -> Map:
    axes = _axes(cloud, kind, dimensions)
    coordinates = axes(np.vstack([cloud.landmarks(), _flat(cloud.steps())]))
    return _map(cloud, axes.kind, coordinates, axes.parameters, axes.labels, axes.note)


def _axes(cloud: Cloud, kind: str, dimensions: int) -> Axes:
    landmarks, texts = cloud.landmarks(), len(cloud.texts)
    if kind == "pca":
        return principal_axes(landmarks, dimensions)
    return gap_axes(landmarks[:texts], landmarks[texts:], dimensions)


def _umap(cloud: Cloud, dimensions: int, settings: UmapSettings) -> Map:
    """Starts at the principal components: fewer of the large shapes hang on the seed than from a spectral start."""
    points = np.vstack([cloud.landmarks(), _flat(cloud.steps())])
    with reproducibly():
        coordinates = lay_out(points, principal_axes(cloud.landmarks(), dimensions)(points), settings)
    parameters = {"asked": "umap", **vars(settings)}
    return _map(cloud, "umap", coordinates, parameters, tuple(f"UMAP {axis + 1}" for axis in range(dimensions)), None)


def _map(
    cloud: Cloud,
    kind: str,
    coordinates: np.ndarray,
    parameters: dict[str, Any],
    axes: tuple[str, ...],
    note: str | None,
) -> Map:
    dimensions = coordinates.shape[1]
    texts, videos, steps = np.split(coordinates, np.cumsum([len(cloud.texts), len(cloud.videos)]))
    paths = steps.reshape(*cloud.paths.shape[:2], dimensions)
    return Map(kind, dimensions, texts, videos, paths, parameters, axes, note)


def _settings_of(map: Map) -> UmapSettings:
    try:
        return UmapSettings(*(map.parameters[name] for name in ("seed", "neighbours", "min_distance")))
    except KeyError as error:
        raise InputError(f"This UMAP does not say its {error.args[0]}: project the cloud again.") from error


def _vectors(values: Any, name: str, axes: int) -> np.ndarray:
    """Values as float32, once they are known to be vectors that have a direction."""
    array = np.asarray(values)
    require(array.dtype.kind == "f", f"Embeddings are floating-point numbers; {name} are {array.dtype}.")
    require(array.ndim == axes and array.shape[-1] > 0, f"The shape {array.shape} of {name} should have {axes} axes.")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    require(bool(np.isfinite(array).all()), f"There is a NaN or an infinite number in {name}.")
    require(bool(array.any(axis=-1).all()), f"There is a vector of zeros in {name}, which has no direction.")
    return array


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)  # squares overflow in float32
    return (vectors / lengths).astype(np.float32)


def _flat(paths: np.ndarray) -> np.ndarray:
    return paths.reshape(-1, paths.shape[-1])

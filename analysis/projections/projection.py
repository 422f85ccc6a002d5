"""Maps of texts, videos and trajectories (paths) in two or three dimensions.

There are three kinds of map. All show unit vectors, since retrieval compares by cosine:

- linear: the gap axis (the difference of the two centroids) and the strongest directions across it. It invents no
  structure, and distances along its first axis are true.
- pca: the strongest principal components of texts and videos.
- umap: neighbourhoods. Distances between its clouds mean nothing. It is fitted on texts, videos and all steps of all
  paths. Fitted on texts and videos alone, it draws an even path as one jump: none of them lies in the gap, and
  `transform` puts every step beside one cloud or the other. If the gap is many times wider than the clouds, steps of
  different paths are closer to each other than to their own paths, and the joint fit tears paths too.

See analysis/projections/trust.py for trust measures of a map, and analysis/projections/cache.py for map files.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.projections.linear import NO_GAP, Axes, gap_axes, principal_axes
from analysis.projections.umap_layout import UmapSettings, lay_out, place, reproducibly
from dits.common.errors import InputError, require

KINDS = ("linear", "pca", "umap")

MIN_POINTS_FOR_UMAP = 50
"""With fewer different texts and videos a neighbourhood is most of the corpus, and the linear view replaces UMAP."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """The vectors of a map: landmarks, which are texts (N, d) and videos (V, d), and Q paths of S points (S, Q, d).

    They are stored as float32 and not normalised. Without paths, Q is 0 and S is arbitrary.

    Raises:
        InputError: the values are not floating-point numbers, or NaN or infinite, a vector is zero, the shapes do not
            fit, or there are fewer than two different texts or videos.
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
            "Texts, videos and paths must have the same width, and theirs are {}, {} and {}.".format(*widths),
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
    """Coordinates (float32) of a cloud, with the parameters of the projection.

    Attributes:
        kind: one of KINDS; if it is not the requested one, `note` has the reason.
        dimensions: k, 2 or 3.
        texts: (N, k).
        videos: (V, k).
        paths: (S, Q, k).
        parameters: JSON values: the requested kind ("asked") and, by kind, the gap (linear: distance of the
            centroids), the components' shares of the variance (pca, from 0 to 1), the settings (umap), and after
            `add_path` on a UMAP "landmark_movement" (see analysis.projections.umap_layout.place).
        axes: a label for each axis.
        note: a sentence for the reader of the map, or None.
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
        """Whether the map has the same numbers of texts, videos, paths and steps as the cloud."""
        own = [values.shape[:-1] for values in (self.texts, self.videos, self.paths)]
        return own == [values.shape[:-1] for values in (cloud.texts, cloud.videos, cloud.paths)]


@dataclass(frozen=True, eq=False)
class Nearest:
    """Nearest neighbours in the full space: indices of texts and videos in the cloud, nearest first, and cosines."""

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
    neighbours: int = UmapSettings.neighbours,
    min_distance: float = UmapSettings.min_distance,
) -> Map:
    """A map of the cloud.

    Args:
        kind: one of KINDS.
        dimensions: 2 or 3.
        seed: see UmapSettings; like the next two, it affects only UMAP.
        neighbours: see UmapSettings.
        min_distance: see UmapSettings.

    Raises:
        InputError: the kind, dimensions or settings are invalid, the embeddings have fewer dimensions, or there are too
            few different points for the dimensions or neighbours.
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
    map = _linear(cloud, "linear" if kind == "umap" else kind, dimensions)
    if kind == "umap":
        reason = (
            f"UMAP shows neighbourhoods, and {different} texts and videos are too few for them (it needs "
            f"{MIN_POINTS_FOR_UMAP}): this is the linear view."
        )
        map = replace(map, note=" ".join(filter(None, (reason, map.note))))
    return replace(map, parameters={"asked": kind} | map.parameters)


def add_path(cloud: Cloud, map: Map, path: np.ndarray) -> Map:
    """The map of the cloud with a further path (S, d), or several (S, P, d); all other points keep their coordinates.

    Linear and PCA maps keep their axes. A UMAP is fitted again, starting from its layout, and the new points are
    registered onto the existing layout; "landmark_movement" in the map's parameters measures the error (see
    analysis.projections.umap_layout.place). The cloud of the new map is `cloud.with_paths(path)`.

    Raises:
        InputError: the path does not fit the cloud, or the map is of another cloud.
    """
    require(map.fits(cloud), "This map is of another cloud: project the cloud that the path is added to.")
    new = cloud.with_paths(path).steps()[:, cloud.paths.shape[1] :]
    parameters = map.parameters
    if map.kind == "umap":
        landmarks = map.landmarks()
        points = np.vstack([cloud.landmarks(), _flat(cloud.steps())])
        layout = np.vstack([landmarks, _flat(map.paths)])
        added, movement = place(points, layout, new, len(landmarks), _settings_of(map))
        parameters = parameters | {"landmark_movement": movement}
    else:
        added = _axes(cloud, map.kind, map.dimensions)(new)
    paths = np.concatenate([map.paths, added], axis=1) if map.paths.shape[1] else added
    return replace(map, paths=paths, parameters=parameters)


def nearest(cloud: Cloud, point: np.ndarray, count: int) -> Nearest:
    """The at most `count` texts and `count` videos nearest to a point (d,) by cosine.

    A point of the cloud is its own nearest neighbour, at a cosine of 1.

    Raises:
        InputError: the point is not a vector of the cloud's width, or the count is below 1.
    """
    require(count >= 1, f"Ask for at least one neighbour, not {count}.")
    point = _unit(_vectors(np.reshape(point, (1, -1)), "the point", 2))[0]
    width = cloud.texts.shape[1]
    require(len(point) == width, f"The point has width {len(point)}, and the cloud has {width}.")
    neighbours = []
    for points in (cloud.texts, cloud.videos):
        cosines = _unit(points) @ point
        best = np.argsort(-cosines, kind="stable")[:count]
        neighbours += [best, cosines[best]]
    return Nearest(*neighbours)


def _linear(cloud: Cloud, kind: str, dimensions: int) -> Map:
    axes = _axes(cloud, kind, dimensions)
    coordinates = axes(np.vstack([cloud.landmarks(), _flat(cloud.steps())]))
    return _map(cloud, coordinates, kind=axes.kind, parameters=axes.parameters, axes=axes.labels, note=axes.note)


def _axes(cloud: Cloud, kind: str, dimensions: int) -> Axes:
    landmarks, texts = cloud.landmarks(), len(cloud.texts)
    if kind == "pca":
        return principal_axes(landmarks, dimensions)
    return gap_axes(landmarks[:texts], landmarks[texts:], dimensions)


def _umap(cloud: Cloud, dimensions: int, settings: UmapSettings) -> Map:
    """Starts at the principal components, since the overall shape depends more on the seed with a spectral start."""
    points = np.vstack([cloud.landmarks(), _flat(cloud.steps())])
    with reproducibly():
        coordinates = lay_out(points, principal_axes(cloud.landmarks(), dimensions)(points), settings)
    parameters = {"asked": "umap", **vars(settings)}
    axes = tuple(f"UMAP {axis + 1}" for axis in range(dimensions))
    return _map(cloud, coordinates, kind="umap", parameters=parameters, axes=axes)


def _map(cloud: Cloud, coordinates: np.ndarray, **attributes: Any) -> Map:
    dimensions = coordinates.shape[1]
    texts, videos, steps = np.split(coordinates, np.cumsum([len(cloud.texts), len(cloud.videos)]))
    paths = steps.reshape(*cloud.paths.shape[:2], dimensions)
    return Map(dimensions=dimensions, texts=texts, videos=videos, paths=paths, **attributes)


def _settings_of(map: Map) -> UmapSettings:
    try:
        return UmapSettings(*(map.parameters[name] for name in ("seed", "neighbours", "min_distance")))
    except KeyError as error:
        raise InputError(f"This UMAP has no parameter {error.args[0]}: project the cloud again.") from error


def _vectors(values: Any, name: str, axes: int) -> np.ndarray:
    """Validated non-zero vectors as float32."""
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

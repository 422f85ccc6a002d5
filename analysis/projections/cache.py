"""Map files: coordinates as safetensors with a JSON header. The cache names them by a hash of their inputs."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from analysis.projections.projection import KINDS, Cloud, Map, project
from analysis.projections.umap_layout import UmapSettings
from dits.common.errors import InputError
from dits.common.files import atomic_path, optional_cache_write, parse_json, sha256_of_json

_FORMAT = 1
_HEADER = "map"
_ARRAYS = ("texts", "videos", "paths")


def cached_map(
    folder: Path,
    cloud: Cloud,
    kind: str,
    dimensions: int = 2,
    *,
    seed: int = 0,
    neighbours: int = UmapSettings.neighbours,
    min_distance: float = UmapSettings.min_distance,
) -> Map:
    """`project` with a cache: the map is read from the folder, or computed and, if possible, written there.

    A damaged file is computed again.

    Raises:
        InputError: see `project`.
    """
    settings = {"seed": seed, "neighbours": neighbours, "min_distance": min_distance}
    path = folder / f"map-{_fingerprint(cloud, [kind, dimensions, settings])[:24]}.safetensors"
    try:
        cached = load_map(path)
        if cached.fits(cloud) and cached.dimensions == dimensions:
            return cached
    except InputError:
        pass
    map = project(cloud, kind, dimensions, seed=seed, neighbours=neighbours, min_distance=min_distance)
    with optional_cache_write():
        save_map(map, path)
    return map


def save_map(map: Map, path: Path) -> None:
    """Write a map atomically.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    arrays = {name: np.ascontiguousarray(getattr(map, name)) for name in _ARRAYS}
    header = {
        "format": _FORMAT,
        "kind": map.kind,
        "dimensions": map.dimensions,
        "parameters": map.parameters,
        "axes": map.axes,
        "note": map.note,
        "sha256": _checksum(arrays),
    }
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={_HEADER: json.dumps(header, allow_nan=False)})


def load_map(path: Path) -> Map:
    """Load a map that `save_map` wrote.

    Raises:
        InputError: there is no such file, or it is damaged or not a map.
    """
    if not path.is_file():
        raise InputError(f"There is no map at {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = parse_json(file.metadata()[_HEADER])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        _check(header, arrays)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged, or not a map of this release: project the embeddings again.") from error
    return Map(
        kind=header["kind"],
        dimensions=header["dimensions"],
        **arrays,
        parameters=header["parameters"],
        axes=tuple(header["axes"]),
        note=header["note"],
    )


def _check(header: dict, arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError, KeyError or TypeError if header and arrays are not those of a map."""
    dimensions = header["dimensions"]
    axes, note = header["axes"], header["note"]
    valid = (
        header["format"] == _FORMAT
        and header["kind"] in KINDS
        and dimensions in (2, 3)
        and isinstance(header["parameters"], dict)
        and isinstance(axes, list)
        and len(axes) == dimensions
        and all(isinstance(axis, str) for axis in axes)
        and (note is None or isinstance(note, str))
        and [values.ndim for values in arrays.values()] == [2, 2, 3]
        and all(values.shape[-1] == dimensions and values.dtype == np.float32 for values in arrays.values())
        and all(np.isfinite(values).all() for values in arrays.values())
        and header["sha256"] == _checksum(arrays)
    )
    if not valid:
        raise ValueError("not a map")


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _fingerprint(cloud: Cloud, options: list) -> str:
    arrays = {name: getattr(cloud, name) for name in _ARRAYS}
    shapes = [values.shape for values in arrays.values()]
    return sha256_of_json([_FORMAT, options, shapes, _checksum(arrays)])

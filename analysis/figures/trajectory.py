"""The map around a single trajectory, at its own scale."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import plotly.graph_objects as go

from analysis.figures.embedding_map import CHOSEN, COMPARED, TRAJECTORY, MapLabels, embedding_map
from analysis.figures.panels import Panel
from analysis.figures.style import step_names
from analysis.projections.projection import Map

_MARGIN = 0.25  # on either side, relative to the trajectory's extent
_NAMES = {
    CHOSEN: "trajectory of the query",
    "chosen": "the clip followed",
    COMPARED: "diffusion",
    TRAJECTORY: "other trajectories",
}
_STILL = 1e-6  # extent of a trajectory that counts as a point, relative to the map's extent


def followed_map(map: Map, labels: MapLabels, path: int, beside: Sequence[int] = (), theme: str = "light") -> go.Figure:
    """The map with a query's trajectory, and others for comparison, with trace names for the page."""
    figure = embedding_map(map, labels, pairs=False, chosen=("path", path), beside=beside, theme=theme)
    return figure.for_each_trace(lambda trace: trace.update(name=_NAMES.get(trace.name, trace.name)))


def trajectory_panel(map: Map, labels: MapLabels, path: int) -> Panel | None:
    """The map around a trajectory, or None if the trajectory does not move."""
    whole, own = _extent(map.landmarks()), _extent(map.paths[:, path])
    if own <= _STILL * whole:
        return None
    chance = " UMAP places such close points at random, so the turns have no meaning." * (map.kind == "umap")
    return Panel(
        f"trajectory-{map.kind}",
        "The trajectory alone",
        f"The same map around this trajectory, {_times(whole / own)}: read its scale before its length.{chance} "
        "Circles are texts and squares are videos, if any are this close.",
        partial(trajectory_map, map, labels, path),
    )


def trajectory_map(map: Map, labels: MapLabels, path: int, theme: str = "light") -> go.Figure:
    """The map around one trajectory, with axes of equal length in the map's units."""
    figure = followed_map(map, labels, path, theme=theme)
    points = map.paths[:, path]
    middle, half = (points.min(axis=0) + points.max(axis=0)) / 2, (0.5 + _MARGIN) * _extent(points)
    ranges = [[float(at - half), float(at + half)] for at in middle]
    if points.shape[1] == 2:
        figure.update_layout(xaxis={"range": ranges[0]}, yaxis={"range": ranges[1]})
        for (x, y), name in ((points[0], "t"), (points[-1], step_names(len(points))[-1])):
            figure.add_annotation(x=float(x), y=float(y), text=name, xshift=16, font={"size": 14})
    else:
        axes = {f"{name}axis": {"range": bounds} for name, bounds in zip("xyz", ranges, strict=True)}
        figure.update_layout(scene={**axes, "aspectmode": "cube"})
    description = (
        f"The map ({map.kind}) around one trajectory, from t to v₀ in {len(points) - 1} steps: "
        f"{labels.path_names[path]}."
    )
    meta = {**figure.layout.meta, "name": f"trajectory-{map.kind}", "description": description}
    return figure.update_layout(meta=meta, showlegend=False)


def _extent(points: np.ndarray) -> float:
    """The longest side of the box around points (n, k)."""
    return float(np.ptp(points, axis=0).max())


def _times(factor: float) -> str:
    if factor < 1.5:
        return "at about the same scale"
    return f"drawn {factor:.2g} times as large" if factor < 10 else f"drawn {round(factor)} times as large"

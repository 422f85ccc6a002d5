"""The way of one sentence alone: the map around it, on a scale of its own."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import plotly.graph_objects as go

from analysis.figures.embedding_map import Map, MapLabels, embedding_map
from analysis.figures.panels import Panel
from analysis.figures.style import step_names

_MARGIN = 0.25  # of the way's extent, on either side
_NAMES = {
    "chosen way": "the way followed",
    "chosen": "the clip followed",
    "way beside it": "diffusion",
    "way of a text": "other ways",
}
_STILL = 1e-6  # of the map's extent: a way no longer than this is a point


def followed_map(map: Map, labels: MapLabels, path: int, beside: Sequence[int] = (), theme: str = "light") -> go.Figure:
    """The map on which one way is followed, with others beside it, under the names that a visitor reads."""
    figure = embedding_map(map, labels, pairs=False, chosen=("path", path), beside=beside, theme=theme)
    return figure.for_each_trace(lambda trace: trace.update(name=_NAMES.get(trace.name, trace.name)))


def trajectory_panel(made: Map, labels: MapLabels, path: int) -> Panel | None:
    """What the map shows around a way; None where the way does not move."""
    whole, own = _extent(_landmarks(made)), _extent(made.paths[:, path])
    if own <= _STILL * whole:
        return None
    chance = " UMAP places points that are so close by chance: read nothing into the turns." * (made.kind == "umap")
    return Panel(
        f"way-{made.kind}",
        "The way alone",
        f"The same map around this way, {_times(whole / own)}: read its scale before its length.{chance} Circles are "
        "texts and squares are videos, where any lie so close.",
        partial(trajectory_map, made, labels, path),
    )


def trajectory_map(map: Map, labels: MapLabels, path: int, theme: str = "light") -> go.Figure:
    """The map with axes that reach around one way: all of the same length, in the map's units."""
    figure = followed_map(map, labels, path, theme=theme)
    way = map.paths[:, path]
    middle, half = (way.min(axis=0) + way.max(axis=0)) / 2, (0.5 + _MARGIN) * _extent(way)
    ranges = [[float(at - half), float(at + half)] for at in middle]
    if way.shape[1] == 2:
        figure.update_layout(xaxis={"range": ranges[0]}, yaxis={"range": ranges[1]})
        for (x, y), name in ((way[0], "t"), (way[-1], step_names(len(way))[-1])):
            figure.add_annotation(x=float(x), y=float(y), text=name, xshift=16, font={"size": 14})
    else:
        axes = {f"{name}axis": {"range": bounds} for name, bounds in zip("xyz", ranges, strict=True)}
        figure.update_layout(scene={**axes, "aspectmode": "cube"})
    steps = len(way) - 1
    description = f"The map ({map.kind}) around one way, from t to v₀ in {steps} steps: {labels.path_names[path]}."
    meta = {**figure.layout.meta, "name": f"way-{map.kind}", "description": description}
    return figure.update_layout(meta=meta, showlegend=False)


def _landmarks(made: Map) -> np.ndarray:
    return np.vstack([made.texts, made.videos])


def _extent(points: np.ndarray) -> float:
    """The longest side of the box around points (n, k)."""
    return float(np.ptp(points, axis=0).max())


def _times(factor: float) -> str:
    if factor < 1.5:
        return "at about the same scale"
    return f"drawn {factor:.2g} times as large" if factor < 10 else f"drawn {round(factor)} times as large"

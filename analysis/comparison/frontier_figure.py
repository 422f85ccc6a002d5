"""The frontier as a figure: recall against the closed share of the gap, for plotly and as a static SVG."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from analysis.comparison.frontier import REFERENCE, SCALES, WEIGHTS, Point
from analysis.figures.style import DASHES, SYMBOLS, Palette, palette_of, panels, place, styled
from dits.common.files import atomic_path

METRICS = ("R@1", "R@10")

_PANEL_HEIGHT = 300
_TITLES = {
    WEIGHTS: "without noise, by the weight of the alignment term",
    SCALES: "without the term, by the scale of the noise",
}
_X = "share of the distance of the centroids that is closed (%)"


def frontier_figure(points: Sequence[Point], best: Point, theme: str = "light") -> go.Figure:
    """One panel for each of METRICS: the two sweeps as lines, references and the chosen point as markers."""
    figure, height = panels(METRICS, panel_height=_PANEL_HEIGHT)
    for panel, metric in enumerate(METRICS):
        for index, (name, members) in enumerate(groups(points, best).items()):
            trace = _trace(name, members, metric, index, palette_of(theme), is_chosen=members == [best])
            figure.add_trace(trace.update(showlegend=panel == 0), **place(panel))
    figure.update_xaxes(title=_X)
    description = (
        f"{' and '.join(METRICS)}, text to video, against the {_X}; bars are 95 % intervals over videos. Chosen: "
        f"{best.setting.entry.title}."
    )
    return styled(figure, theme, "frontier", description, height)


def groups(points: Sequence[Point], best: Point) -> dict[str, list[Point]]:
    """The points by the name of their trace; both sweeps begin at the setting without noise and without the term."""
    start = [point for point in points if point.setting.sweep == WEIGHTS and point.setting.value == 0]
    traces = {
        _TITLES[WEIGHTS]: [point for point in points if point.setting.sweep == WEIGHTS],
        _TITLES[SCALES]: start + [point for point in points if point.setting.sweep == SCALES],
    }
    references = {p.setting.entry.title: [p] for p in points if p.setting.sweep == REFERENCE}
    return traces | references | {f"chosen: {best.setting.entry.title}": [best]}


def write_svg(path: Path, points: Sequence[Point], best: Point) -> None:
    """Writes the figure as an SVG file.

    Raises:
        StorageError: the folder cannot be written.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        for index, (name, members) in enumerate(groups(points, best).items()):
            _draw(axis, name, members, metric, index, is_chosen=members == [best])
        axis.set_title(metric)
        axis.set_xlabel(_X)
        axis.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "dits"}):  # so that equal numbers give equal files
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _trace(
    name: str, members: Sequence[Point], metric: str, index: int, palette: Palette, is_chosen: bool
) -> go.Scatter:
    is_sweep = name in _TITLES.values()
    colour = palette.series[index % 2] if is_sweep else palette.ink if is_chosen else palette.muted
    x, y, (below, above) = _coordinates(members, metric)
    return go.Scatter(
        x=x,
        y=y,
        error_y=None if is_chosen else {"array": above, "arrayminus": below, "thickness": 1},
        hovertext=[point.setting.entry.title for point in members],
        name=name,
        mode="lines+markers" if is_sweep else "markers",
        line={"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
        marker={
            "color": colour,
            "symbol": "circle-open" if is_chosen else SYMBOLS[index % len(SYMBOLS)],
            "size": 18 if is_chosen else 9,
        },
        legendgroup=name,
        meta=metric,
    )


def _coordinates(members: Sequence[Point], metric: str) -> tuple[list[float], list[float], list[list[float]]]:
    """The closed shares in percent, the values of the metric, and how far its interval reaches below and above."""
    estimates = [point.ranking[metric] for point in members]
    bars = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    return [100 * point.closed.value for point in members], [e.value for e in estimates], bars


def _draw(axis: Any, name: str, members: Sequence[Point], metric: str, index: int, is_chosen: bool) -> None:
    x, y, bars = _coordinates(members, metric)
    if is_chosen:
        axis.plot(x, y, "o", markersize=14, fillstyle="none", color="black", label=name)
        return
    marker = "os^D"[index % 4]
    axis.errorbar(x, y, bars, marker=marker, linestyle="-" if len(members) > 1 else "", elinewidth=0.6, label=name)
    for point, *position in zip(members, x, y, strict=True):
        if point.setting.value is not None:
            axis.annotate(f"{point.setting.value:g}", position, textcoords="offset points", xytext=(4, 4), fontsize=7)

"""Figures of text-video pairs: their distances, their scores, and the effect of closing the gap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import (
    SYMBOLS,
    Palette,
    caption,
    curve,
    faint,
    palette_of,
    panels,
    place,
    shortened,
    small,
    styled,
)
from analysis.measures.gap import PairDistances

BINS = 40
"""Number of bins of a histogram, over the joint range of all its outlines."""

PAIR_TITLES = {"l1": "L1 distance of pairs", "l2": "L2 distance of pairs", "cosine": "Cosine of pairs"}

_MAX_LABELLED = 24  # texts of a heat map with labels on its axes
_DASHES = ("dot", "solid", "dash", "dashdot")  # of outlines: the first, "before", is dotted
_COLOUR_BAR = {"thickness": 10, "len": 200, "lenmode": "pixels", "y": 1, "yanchor": "top", "outlinewidth": 0}


def pair_histograms(distances: Mapping[str, PairDistances], theme: str = "light") -> go.Figure:
    """Histograms of the L1, L2 and cosine of pairs, with one outline for each name (such as before and after).

    All outlines of a panel have the same bins. Their traces have the bins' left edges and counts, and the last edge
    with 0. A dashed line marks the mean.
    """
    palette = palette_of(theme)
    measured = {key: {name: np.asarray(getattr(pair, key)) for name, pair in distances.items()} for key in PAIR_TITLES}
    titles = [f"{PAIR_TITLES[key]}<br>{small('mean ' + _means(values))}" for key, values in measured.items()]
    figure, height = panels(titles, panel_height=150)
    for panel, (key, values) in enumerate(measured.items()):
        edges = np.histogram_bin_edges(np.concatenate(list(values.values())), BINS)
        counts = {name: np.histogram(column, edges)[0] for name, column in values.items()}
        highest = max(int(column.max()) for column in counts.values())
        for index, (name, column) in enumerate(values.items()):
            outline, mean = _outline(name, edges, counts[name], float(column.mean()), highest, index, palette)
            outline.update(showlegend=panel == 0)
            for trace in (outline, mean):
                figure.add_trace(trace.update(legendgroup=name, meta=PAIR_TITLES[key]), **place(panel))
        figure.update_yaxes(title_text="pairs", rangemode="tozero", **place(panel))
    means = "; ".join(f"{PAIR_TITLES[key]}: mean {_means(values)}" for key, values in measured.items())
    return styled(figure, theme, "pairs", f"Histograms of the distances of pairs of text and video. {means}.", height)


def similarity_heat_map(scores: np.ndarray, names: Sequence[str], theme: str = "light") -> go.Figure:
    """Cosines (B, B) of texts (rows) with videos (columns), labelled with the names of the pairs.

    Boxes mark the pairs on the diagonal, and dots the highest cosine of each row.
    """
    palette = palette_of(theme)
    size = len(scores)
    indices = np.arange(size)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [np.nan, np.nan]])
    boxes = (indices[:, None, None] + corners).reshape(-1, 2)
    highest = scores.argmax(axis=1)
    labels = [caption(name, lines=2) for name in names]
    heat = go.Heatmap(
        name="cosine",
        z=scores,
        x=indices,
        y=indices,
        colorscale="Cividis",
        colorbar={"title": "cosine", **_COLOUR_BAR},
        hovertext=[[f"text: {row}<br>video: {column}" for column in labels] for row in labels],
        hovertemplate="%{hovertext}<br>cosine %{z:.3f}<extra></extra>",
    )
    labelled = size <= _MAX_LABELLED
    width = 4 if labelled else 2
    own = go.Scatter(
        name="own video",
        x=boxes[:, 0],
        y=boxes[:, 1],
        mode="lines",
        line={"color": palette.ink, "width": width},
        hoverinfo="skip",
    )
    best = go.Scatter(
        name="highest of the text",
        x=highest,
        y=indices,
        mode="markers",
        marker={"color": palette.page, "size": 1 + width, "line": {"color": palette.ink, "width": 1}},
        hoverinfo="skip",
    )
    figure = go.Figure([heat, own, best])
    # A light line on the dark one, or the reverse, since no single colour contrasts with the whole scale.
    outline = " ".join(
        f"M{a},{a} L{b},{a} L{b},{b} L{a},{b} Z" for a, b in zip(indices - 0.5, indices + 0.5, strict=True)
    )
    figure.add_shape(type="path", path=outline, line={"color": palette.page, "width": width / 3}, layer="above")
    ticks: dict[str, Any] = {"showgrid": False, "showline": False, "ticks": "", "showticklabels": labelled}
    if labelled:
        ticks |= {"tickvals": indices, "ticktext": [shortened(name, 14) for name in names]}
    ends = [-0.5, size - 0.5]
    figure.update_xaxes(title_text="video", tickangle=-60, range=ends, constrain="domain", **ticks)
    figure.update_yaxes(
        title_text="text", range=ends[::-1], scaleanchor="x", constrain="domain", constraintoward="top", **ticks
    )
    correct = int((highest == indices).sum())
    description = (
        f"Cosines of {size} texts with their {size} videos: {correct} texts have the highest cosine with their own "
        "video, on the diagonal."
    )
    return styled(figure, theme, "similarities", description, 560)


def gap_shift(
    fractions: np.ndarray,
    centroid_distances: np.ndarray,
    recalls: np.ndarray,
    theme: str = "light",
    marked: float | None = None,
) -> go.Figure:
    """The distance of the centroids, in the full space, and R@1 in percent while arithmetic closes the gap.

    Args:
        fractions: the closed shares of the gap, 1 for all of it.
        marked: a fraction to mark with a line.
    """
    palette = palette_of(theme)
    figure, height = panels(["Distance of the centroids", "R@1, text to video (%)"], panel_height=170, legend=False)
    for panel, values in enumerate((centroid_distances, recalls)):
        line = curve(fractions, values, ("distance of the centroids", "R@1")[panel], panel, palette)
        figure.add_trace(line.update(showlegend=False), **place(panel))
    figure.update_yaxes(rangemode="tozero", **place(0))
    figure.update_xaxes(title_text="share of the gap closed by arithmetic", tickformat=".0%")
    if marked is not None:
        figure.add_vline(marked, line={"color": palette.ink, "width": 1.5, "dash": "dot"})
    description = (
        f"Closing the gap by arithmetic from {fractions[0]:.0%} to {fractions[-1]:.0%}: the distance of the centroids "
        f"goes from {centroid_distances[0]:.3f} to {centroid_distances[-1]:.3f}, R@1 from {recalls[0]:.1f} to "
        f"{recalls[-1]:.1f} percent."
    )
    return styled(figure, theme, "gap-shift", description, height)


def _outline(
    name: str, edges: np.ndarray, counts: np.ndarray, mean: float, highest: int, index: int, palette: Palette
) -> tuple[go.Scatter, go.Scatter]:
    """A histogram's filled outline, and a line at its mean."""
    colours = (palette.muted, *palette.series)
    colour = colours[index % len(colours)]
    outline = go.Scatter(
        x=edges,
        y=np.append(counts, 0),
        name=shortened(name, 40),
        mode="lines",
        line={"shape": "hv", "color": colour, "width": 1.8, "dash": _DASHES[index % len(_DASHES)]},
        fill="tozeroy",
        fillcolor=faint(colour, 0.16),
    )
    line = go.Scatter(
        x=[mean, mean],
        y=[0, highest * 1.06],
        name=f"mean of {shortened(name, 40)}",
        mode="lines+markers",
        line={"color": colour, "width": 1.5, "dash": "dash"},
        marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": [0, 8], "color": colour, "opacity": 1},
        showlegend=False,
    )
    return outline, line


def _means(values: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{column.mean():.3f} ({name})" for name, column in values.items())

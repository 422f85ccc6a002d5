"""A linear view of texts and videos shifted along the gap by arithmetic, with a frame for each closed share."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from analysis.figures.map_panels import video_names
from analysis.figures.panels import Panel
from analysis.figures.style import caption, palette_of, styled
from analysis.flow import Flow
from analysis.measures.analysis import Shift
from analysis.measures.gap import shift_along_gap
from analysis.projections.projection import Cloud, Map, project


def shift_panel(flow: Flow, shifts: Sequence[Shift]) -> Panel:
    """The texts and videos of a flow at each of `shifts`, with R@1."""
    return Panel(
        "shift",
        "Move the modalities along the gap",
        "Drag the slider: both clouds move towards each other along the mean gap. R@1 is by the plain cosine of the "
        "moved points, without the method. The clouds can meet without any text meeting its own video.",
        partial(shift_map, flow, _shifted_map(flow, [shift.share for shift in shifts]), shifts),
    )


def shift_map(flow: Flow, map: Map, shifts: Sequence[Shift], theme: str = "light") -> go.Figure:
    """The linear view of texts and videos, on the axes of the original gap, with a frame for each shift.

    Frames are named by their index, and the slider's labels have the remaining distance and R@1. The paths of `map` are
    the texts, then one point for each video, at every shift.
    """
    palette, texts = palette_of(theme), len(flow.texts)
    parts = [slice(0, texts), slice(texts, None)]
    all_names = video_names(flow)
    names = [all_names[video] for video in np.unique(flow.video_of)]
    figure = go.Figure(
        [
            _points(map.paths[0, parts[0]], "text", palette.text, "circle", flow.texts),
            _points(map.paths[0, parts[1]], "video", palette.video, "square", names),
        ]
    )
    figure.frames = [
        go.Frame(name=str(index), traces=[0, 1], data=[go.Scatter(_coordinates(stage[part])) for part in parts])
        for index, stage in enumerate(map.paths)
    ]
    steps = [
        {"label": _label(shift), "method": "animate", "args": [[str(index)], {"mode": "immediate"}]}
        for index, shift in enumerate(shifts)
    ]
    x_range, y_range = (_range(map.paths[..., axis]) for axis in (0, 1))
    figure.update_layout(
        sliders=[{"active": 0, "steps": steps, "pad": {"t": 50}}],
        xaxis={"title": map.axes[0], "range": x_range},
        yaxis={"title": map.axes[1], "range": y_range, "scaleanchor": "x", "scaleratio": 1},
    )
    description = (
        f"Linear view of {texts} texts (circles) and their videos (squares) while the gap is closed in {len(shifts)} "
        f"steps: first {_label(shifts[0])}, last {_label(shifts[-1])}."
    )
    return styled(figure, theme, "shift", description, 460)


def _shifted_map(flow: Flow, shares: Sequence[float]) -> Map:
    """A linear map whose paths are the texts, then one point for each video with a text, at every share."""
    firsts = torch.from_numpy(np.unique(flow.video_of, return_index=True)[1])
    stages = [shift_along_gap(flow.queries, flow.own_videos, share) for share in shares]
    paths = torch.stack([torch.cat([texts, own[firsts]]) for texts, own in stages])
    return project(Cloud(flow.queries.numpy(), flow.own_videos[firsts].numpy(), paths.float().numpy()), "linear")


def _points(points: np.ndarray, kind: str, colour: str, symbol: str, names: Sequence[str]) -> go.Scatter:
    return go.Scatter(
        _coordinates(points),
        name=kind,
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.75},
        hovertext=[caption(name) for name in names],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _coordinates(points: np.ndarray) -> dict[str, Any]:
    return {"x": points[:, 0], "y": points[:, 1]}


def _range(values: np.ndarray) -> list[float]:
    """The range of all frames with a margin, so that the axes do not change."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low)
    return [low - margin, high + margin]


def _label(shift: Shift) -> str:
    return f"{shift.share:.0%} closed: distance {shift.centroid_distance:.3f}, R@1 {shift.t2v.r1:.1f}"

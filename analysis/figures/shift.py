"""The modalities moved along the gap by arithmetic: a linear view with a frame for each share that is closed."""

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
    """The texts and videos of a flow at every share of the gap that `shifts` closes, and what that does to R@1."""
    return Panel(
        "shift",
        "Move the modalities along the gap",
        "Drag the slider: both clouds move towards each other along the mean gap. R@1 is by the plain cosine of the "
        "moved points, without the method. That the clouds meet says nothing about which text meets which video.",
        partial(shift_map, flow, _moved(flow, [shift.share for shift in shifts]), shifts),
    )


def shift_map(flow: Flow, made: Map, shifts: Sequence[Shift], theme: str = "light") -> go.Figure:
    """The linear view of texts and videos, on the axes of the gap as it is, with a frame for each shift.

    Each frame is named by its place, and the slider's steps say the distance that is left and R@1. `made` has the
    texts, then one point for each video, at every shift.
    """
    palette, texts = palette_of(theme), len(flow.texts)
    parts = [slice(0, texts), slice(texts, None)]
    called = video_names(flow)
    names = [called[video] for video in np.unique(flow.video_of)]
    figure = go.Figure(
        [
            _points(made.paths[0, parts[0]], "text", palette.text, "circle", flow.texts),
            _points(made.paths[0, parts[1]], "video", palette.video, "square", names),
        ]
    )
    figure.frames = [
        go.Frame(name=str(index), traces=[0, 1], data=[go.Scatter(_places(stage[part])) for part in parts])
        for index, stage in enumerate(made.paths)
    ]
    steps = [
        {"label": _label(shift), "method": "animate", "args": [[str(index)], {"mode": "immediate"}]}
        for index, shift in enumerate(shifts)
    ]
    across, up = (_range(made.paths[..., axis]) for axis in (0, 1))
    figure.update_layout(
        sliders=[{"active": 0, "steps": steps, "pad": {"t": 50}}],
        xaxis={"title": made.axes[0], "range": across},
        yaxis={"title": made.axes[1], "range": up, "scaleanchor": "x", "scaleratio": 1},
    )
    description = (
        f"Linear view of {texts} texts (circles) and their videos (squares) while the gap is closed in {len(shifts)} "
        f"steps: {_label(shifts[0])} at first, {_label(shifts[-1])} at last."
    )
    return styled(figure, theme, "shift", description, 460)


def _moved(flow: Flow, shares: Sequence[float]) -> Map:
    """Texts, then one point for each video that has a text, at every share, as paths of a linear map."""
    firsts = torch.from_numpy(np.unique(flow.video_of, return_index=True)[1])
    stages = [shift_along_gap(flow.queries, flow.own_videos, share) for share in shares]
    paths = torch.stack([torch.cat([texts, own[firsts]]) for texts, own in stages])
    return project(Cloud(flow.queries.numpy(), flow.own_videos[firsts].numpy(), paths.float().numpy()), "linear")


def _points(points: np.ndarray, kind: str, colour: str, symbol: str, names: Sequence[str]) -> go.Scatter:
    return go.Scatter(
        _places(points),
        name=kind,
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.75},
        hovertext=[caption(name) for name in names],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _places(points: np.ndarray) -> dict[str, Any]:
    return {"x": points[:, 0], "y": points[:, 1]}


def _range(values: np.ndarray) -> list[float]:
    """From the lowest to the highest of all frames, so that the axes stand still, with a margin."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low)
    return [low - margin, high + margin]


def _label(shift: Shift) -> str:
    return f"{shift.share:.0%} closed: distance {shift.centroid_distance:.3f}, R@1 {shift.t2v.r1:.1f}"

"""The modalities moved along the gap by arithmetic: a linear view with a frame for each share that is closed."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from analysis.figure_style import caption, palette_of, styled
from analysis.flow import Flow
from analysis.gap import shift_along_gap
from analysis.panels import Panel
from analysis.projection import Cloud, Map, project
from analysis.report import Shift


def shift_panel(flow: Flow, shifts: Sequence[Shift]) -> Panel:
    """The texts and videos of a flow at every share of the gap that `shifts` closes, and what that does to R@1."""
    return Panel(
        "shift",
        "Move the modalities along the gap",
        "Drag the slider: both clouds move towards each other along the mean gap. R@1 is by the plain cosine. That the "
        "clouds meet says nothing about which text meets which video.",
        partial(shift_map, flow, shifts),
        wide=True,
    )


def shift_map(flow: Flow, shifts: Sequence[Shift], theme: str = "light") -> go.Figure:
    """The linear view of texts and videos, on the axes of the gap as it is, with a frame for each shift.

    Each frame is named by its share, and the slider's steps say the distance that is left and R@1.
    """
    firsts = torch.from_numpy(np.unique(flow.video_of, return_index=True)[1])
    made = _moved(flow, [shift.share for shift in shifts])
    palette = palette_of(theme)
    texts = len(flow.texts)
    figure = go.Figure([_points(made, 0, slice(0, texts), "text", palette.text, "circle", flow.texts)])
    names = [flow.video_ids[flow.video_of[text]] for text in firsts]
    figure.add_trace(_points(made, 0, slice(texts, None), "video", palette.video, "square", names))
    figure.frames = [
        go.Frame(
            name=str(index),
            traces=[0, 1],
            data=[
                _points(made, index, slice(0, texts), "text", palette.text, "circle", flow.texts),
                _points(made, index, slice(texts, None), "video", palette.video, "square", names),
            ],
        )
        for index in range(len(shifts))
    ]
    steps = [
        {"label": _label(shift), "method": "animate", "args": [[str(index)], {"mode": "immediate"}]}
        for index, shift in enumerate(shifts)
    ]
    figure.update_layout(
        sliders=[{"active": 0, "steps": steps, "pad": {"t": 50}}],
        xaxis_title=made.axes[0],
        yaxis={"title": made.axes[1], "scaleanchor": "x", "scaleratio": 1},
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


def _points(made: Map, step: int, rows: slice, kind: str, colour: str, symbol: str, names: Sequence[str]) -> go.Scatter:
    points = made.paths[step, rows]
    where: dict[str, Any] = {"x": points[:, 0], "y": points[:, 1]}
    return go.Scatter(
        **where,
        name=kind,
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.75},
        hovertext=[caption(name) for name in names],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _label(shift: Shift) -> str:
    return f"{shift.share:.0%} closed: distance {shift.centroid_distance:.3f}, R@1 {shift.t2v.r1:.1f}"

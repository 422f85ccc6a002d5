"""The embedding map: texts, videos, their pairs, and the trajectories of texts step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import Palette, caption, palette_of, step_names, styled
from analysis.projections.projection import Map
from dits.common.errors import InputError

KINDS = ("text", "video", "path")
"""The kinds of points on a map: the first entry of their custom data."""

_MANY = 5_000  # points above which WebGL draws
_FRAME = 500  # milliseconds for each step of the animation
_MOVE = 300  # milliseconds of these in which the points move
_CAMERA = {"eye": {"x": 1.45, "y": 1.45, "z": 0.85}, "center": {"x": 0, "y": 0, "z": -0.15}}
_UNITLESS_AXIS = {"ticks": "", "showgrid": False}


TRAJECTORY, COMPARED, CHOSEN = "trajectory of a text", "compared trajectory", "chosen trajectory"
"""Names of the traces of trajectories."""


@dataclass(frozen=True)
class MapLabels:
    """Labels of the points of a map.

    Attributes:
        texts: (N) sentences.
        videos: (V) names.
        video_of: (N,) index of each text's video.
        paths: (Q) index of each trajectory's text, or -1 for a new query.
        path_names: (Q) sentences.
        thumbnails: (V) addresses of pictures, or empty.
        ends: (Q) the target video of each new query's trajectory, -1 for other trajectories; or empty.
    """

    texts: tuple[str, ...]
    videos: tuple[str, ...]
    video_of: np.ndarray
    paths: tuple[int, ...] = ()
    path_names: tuple[str, ...] = ()
    thumbnails: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()

    def thumbnail(self, video: int) -> str:
        """The address of a video's picture, or an empty text."""
        return self.thumbnails[video] if self.thumbnails and video >= 0 else ""

    def video_of_path(self, path: int) -> int:
        """The video of a trajectory's text, or the target video of a new query; -1 if unknown."""
        text = self.paths[path]
        if text >= 0:
            return int(self.video_of[text])
        return self.ends[path] if self.ends else -1


def embedding_map(
    map: Map,
    labels: MapLabels,
    *,
    pairs: bool = True,
    step: int | None = None,
    chosen: tuple[str, int] | None = None,
    beside: Sequence[int] = (),
    theme: str = "light",
) -> go.Figure:
    """The map as a figure whose frames move the trace "now" along the trajectories.

    Every point has customdata [kind, index, step, thumbnail]: one of KINDS, its index among the texts, videos or
    trajectories, the step counted from 0 (None for a video), and the address of its video's picture or "".

    Args:
        pairs: whether to draw lines between texts and their videos.
        step: the initial step of "now", counted from 0; by default the last.
        chosen: the kind and index of the point to highlight, as in customdata. If it has a trajectory, "now" moves only
            along this trajectory and those in `beside`.
        beside: indices of trajectories for comparison.

    Raises:
        InputError: the theme, the step or the chosen point does not exist.
    """
    palette = palette_of(theme)
    steps, count, size = map.paths.shape
    step = steps - 1 if step is None else step
    if count and not 0 <= step < steps:
        raise InputError(f"There is no step {step}: the trajectories have {steps} points, counted from 0.")
    highlighted = _highlighted(map, labels, chosen)
    fast = len(map.texts) + len(map.videos) + steps * count > _MANY
    opacity = 0.3 if highlighted["path"] else 1.0
    figure = go.Figure()
    if pairs:
        figure.add_trace(_pair_lines(map, labels, palette, fast))
    figure.add_trace(_texts(map, labels, palette, fast))
    figure.add_trace(_videos(map, labels, palette, fast))
    if count:
        figure.add_trace(_trajectories(map, labels, range(count), palette, fast, name=TRAJECTORY, opacity=opacity))
    if beside:
        figure.add_trace(_trajectories(map, labels, beside, palette, False, name=COMPARED, width=2, size=7))
    if highlighted["path"]:
        chosen_paths = highlighted["path"]
        figure.add_trace(_trajectories(map, labels, chosen_paths, palette, False, name=CHOSEN, width=3, size=9))
    if highlighted["text"] or highlighted["video"]:
        figure.add_trace(_rings(map, labels, highlighted, palette))
    if count:
        moving = [*highlighted["path"], *beside] or range(count)
        figure.add_trace(_now(map, labels, moving, step, palette))
        figure.frames = [
            go.Frame(name=str(at), data=[_now(map, labels, moving, at, palette)], traces=[len(figure.data) - 1])
            for at in range(steps)
        ]
        figure.update_layout(_controls(steps, step, redraw=size == 3))
    _set_axes(figure, map)
    trajectories = f", and the trajectories of {count} texts in {steps - 1} steps" if count else ""
    description = (
        f"Map ({map.kind}, {size} dimensions) of {len(map.texts)} texts (circles) and {len(map.videos)} videos "
        f"(squares){trajectories}. Distances on the map are not distances of embeddings."
    )
    height = 620 if count else 540
    sides = 56 if size == 2 else 8
    margin = {"l": sides, "r": min(sides, 16), "b": 134 if count else 52}
    return styled(figure, theme, f"map-{map.kind}-{size}d", description, height, margin=margin)


def _highlighted(map: Map, labels: MapLabels, chosen: tuple[str, int] | None) -> dict[str, list[int]]:
    """The texts, videos and trajectories that belong to the chosen point."""
    indices: dict[str, list[int]] = {kind: [] for kind in KINDS}
    if chosen is None:
        return indices
    kind, index = chosen
    sizes = {"text": len(map.texts), "video": len(map.videos), "path": map.paths.shape[1]}
    if kind not in sizes or not 0 <= index < sizes[kind]:
        raise InputError(f"The map has no {kind} {index} to choose.")
    if kind == "video":
        return {**indices, "video": [index]}
    text = index if kind == "text" else labels.paths[index]
    if text >= 0:
        indices["text"] = [text]
    video = int(labels.video_of[text]) if kind == "text" else labels.video_of_path(index)
    if video >= 0:
        indices["video"] = [video]
    own = [path for path, start in enumerate(labels.paths) if start == text]
    return {**indices, "path": own if kind == "text" else [index]}


def _trace(points: np.ndarray, fast: bool = False, **settings: Any) -> go.Scatter | go.Scattergl | go.Scatter3d:
    """Points (n, k) as a trace; NaN rows break its line."""
    kind = go.Scatter3d if points.shape[1] == 3 else go.Scattergl if fast else go.Scatter
    if "hovertext" in settings:
        settings["hovertemplate"] = "%{hovertext}<extra></extra>"
    return kind(**dict(zip("xyz", points.T, strict=False)), **settings)


def _with_breaks(groups: np.ndarray) -> np.ndarray:
    """Lines (L, n, k) as consecutive rows (L * (n + 1), k), with a NaN row after each line."""
    count, _, size = groups.shape
    return np.concatenate([groups, np.full((count, 1, size), np.nan)], axis=1).reshape(-1, size)


def _pair_lines(map: Map, labels: MapLabels, palette: Palette, fast: bool) -> Any:
    ends = np.stack([map.texts, map.videos[labels.video_of]], axis=1)
    line = {"color": palette.muted, "width": 1}
    return _trace(_with_breaks(ends), fast, name="pair", mode="lines", line=line, opacity=0.35, hoverinfo="skip")


def _texts(map: Map, labels: MapLabels, palette: Palette, fast: bool) -> Any:
    data = [["text", index, 0, labels.thumbnail(int(video))] for index, video in enumerate(labels.video_of)]
    marker = {"color": palette.text, "symbol": "circle"}
    return _landmarks(map.texts, fast, name="text", marker=marker, names=labels.texts, customdata=data)


def _videos(map: Map, labels: MapLabels, palette: Palette, fast: bool) -> Any:
    data = [["video", index, None, labels.thumbnail(index)] for index in range(len(map.videos))]
    marker = {"color": palette.video, "symbol": "square", "line": {"color": palette.page, "width": 1}}
    return _landmarks(map.videos, fast, name="video", marker=marker, names=labels.videos, customdata=data)


def _landmarks(points: np.ndarray, fast: bool, marker: dict[str, Any], names: Sequence[str], **settings: Any) -> Any:
    size = 8 if len(points) <= 100 else 6 if len(points) <= 1_000 else 4
    marker = {**marker, "size": size - 3 * (points.shape[1] == 3), "opacity": 0.7}
    return _trace(points, fast, mode="markers", marker=marker, hovertext=[caption(name) for name in names], **settings)


def _trajectories(
    map: Map,
    labels: MapLabels,
    index: Sequence[int],
    palette: Palette,
    fast: bool,
    *,
    name: str,
    width: int = 1,
    size: int = 5,
    opacity: float = 1.0,
) -> Any:
    """Trajectories, coloured from the text's colour at the start to the video's at the end."""
    steps = len(map.paths)
    return _trace(
        _with_breaks(map.paths[:, list(index)].transpose(1, 0, 2)),
        fast,
        name=name,
        mode="lines+markers",
        opacity=opacity,
        line={"color": palette.muted, "width": width},
        marker={
            "color": np.tile(np.arange(steps + 1), len(index)),
            "colorscale": palette.steps,
            "cmin": 0,
            "cmax": max(steps - 1, 1),
            "size": size - 2 * (map.paths.shape[2] == 3),
        },
        hovertext=[_path_hover(labels, path, at, steps) for path in index for at in [*range(steps), None]],
        customdata=[_path_data(labels, path, at) for path in index for at in [*range(steps), None]],
    )


def _now(map: Map, labels: MapLabels, moving: Sequence[int], step: int, palette: Palette) -> Any:
    """The points of trajectories at a step."""
    points = map.paths[step, list(moving)]
    return _trace(
        points,
        name="now",
        mode="markers",
        marker={
            "color": palette.ink,
            "symbol": "diamond",
            "size": (11 if len(points) <= 50 else 7) - 6 * (points.shape[1] == 3),
            "line": {"color": palette.page, "width": 1},
        },
        hovertext=[_path_hover(labels, path, step, len(map.paths)) for path in moving],
        customdata=[_path_data(labels, path, step) for path in moving],
    )


def _path_hover(labels: MapLabels, path: int, step: int | None, steps: int) -> str:
    return "" if step is None else f"{caption(labels.path_names[path])}<br>step {step_names(steps)[step]}"


def _path_data(labels: MapLabels, path: int, step: int | None) -> list[Any]:
    return ["path", int(path), step, labels.thumbnail(labels.video_of_path(path))]


def _rings(map: Map, labels: MapLabels, highlighted: dict[str, list[int]], palette: Palette) -> Any:
    texts, videos = highlighted["text"], highlighted["video"]
    flat = map.texts.shape[1] == 2
    return _trace(
        np.concatenate([map.texts[texts], map.videos[videos]]),
        name="chosen",
        mode="markers",
        marker={
            "color": palette.ink,
            "symbol": ["circle-open"] * len(texts) + ["square-open"] * len(videos),
            "size": 17 if flat else 9,
            "line": {"width": 2.5, "color": palette.ink},
        },
        hovertext=[caption(labels.texts[text]) for text in texts] + [caption(labels.videos[video]) for video in videos],
        customdata=[["text", text, 0, labels.thumbnail(int(labels.video_of[text]))] for text in texts]
        + [["video", video, None, labels.thumbnail(video)] for video in videos],
    )


def _set_axes(figure: go.Figure, map: Map) -> None:
    """Gives all axes one scale, except those of UMAP, whose coordinates have no meaning."""
    free, flat = map.kind == "umap", map.texts.shape[1] == 2
    settings = [
        {"title": {"text": caption(title, 30 if flat else 22, 2)}, "showticklabels": not free} for title in map.axes
    ]
    if not flat:
        axes = {f"{name}axis": axis for name, axis in zip("xyz", settings, strict=True)}
        figure.update_layout(scene={**axes, "aspectmode": "cube" if free else "data", "camera": _CAMERA})
        return
    figure.update_layout(xaxis=settings[0], yaxis=settings[1])
    if free:
        figure.update_xaxes(_UNITLESS_AXIS).update_yaxes(_UNITLESS_AXIS)
    else:
        figure.update_yaxes(scaleanchor="x", scaleratio=1)


def _controls(steps: int, step: int, redraw: bool) -> dict[str, Any]:
    """A slider over the frames, and buttons to play and stop them. Figures in three dimensions need `redraw`."""
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": redraw}, "transition": {"duration": 0}}
    play = {
        "mode": "immediate",
        "fromcurrent": True,
        "frame": {"duration": _FRAME, "redraw": redraw},
        "transition": {"duration": _MOVE, "easing": "cubic-in-out"},
    }
    slider = {
        "active": step,
        "x": 0,
        "len": 1,
        "pad": {"t": 74, "b": 0},
        "currentvalue": {"prefix": "step ", "xanchor": "right"},
        "steps": [
            {"label": name, "method": "animate", "args": [[str(at)], jump]} for at, name in enumerate(step_names(steps))
        ],
    }
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, play]},
        {"label": "Stop", "method": "animate", "args": [[None], jump]},
    ]
    position = {"direction": "left", "x": 0, "y": 0, "xanchor": "left", "yanchor": "top", "pad": {"t": 58, "r": 0}}
    menu = {"type": "buttons", **position, "showactive": False, "buttons": buttons}
    return {"sliders": [slider], "updatemenus": [menu]}

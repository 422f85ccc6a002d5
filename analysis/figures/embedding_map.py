"""The embedding map: texts, videos, who belongs to whom, and the way of texts step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import Palette, caption, palette_of, step_names, styled
from dits.common.errors import InputError

KINDS = ("text", "video", "path")
"""What a point of the map stands for: the first of its custom data."""

_MANY = 5_000  # points, above which the browser draws with WebGL
_FRAME = 500  # milliseconds that playing stays at a step
_CAMERA = {"eye": {"x": 1.45, "y": 1.45, "z": 0.85}, "center": {"x": 0, "y": 0, "z": -0.15}}
_FREE = {"ticks": "", "showgrid": False}  # of an axis without a unit
_MOVE = 300  # of them, those in which the points move there


class Map(Protocol):
    """Coordinates in k = 2 or 3 dimensions: texts (N, k), videos (V, k), Q ways of S points each (S, Q, k)."""

    @property
    def texts(self) -> np.ndarray:
        """Where the texts lie: (N, k)."""

    @property
    def videos(self) -> np.ndarray:
        """Where the videos lie: (V, k)."""

    @property
    def paths(self) -> np.ndarray:
        """Where the ways lead: (S, Q, k)."""

    @property
    def axes(self) -> tuple[str, ...]:
        """What each of the k axes is."""

    @property
    def kind(self) -> str:
        """How the coordinates were made: "umap", "pca" or "linear"."""


@dataclass(frozen=True)
class MapLabels:
    """What the points of a map are.

    Attributes:
        texts: (N) sentences.
        videos: (V) names.
        video_of: (N,) each text's video.
        paths: (Q) the text that each way starts at, or -1 for a new query.
        path_names: (Q) sentences.
        thumbnails: (V) addresses of pictures, or none.
        ends: (Q) the video that a way of a new query is followed to, -1 for the other ways; or none.
    """

    texts: tuple[str, ...]
    videos: tuple[str, ...]
    video_of: np.ndarray
    paths: tuple[int, ...] = ()
    path_names: tuple[str, ...] = ()
    thumbnails: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()

    def thumbnail(self, video: int) -> str:
        """The address of a video's picture; empty where there is none."""
        return self.thumbnails[video] if self.thumbnails and video >= 0 else ""

    def video_of_path(self, path: int) -> int:
        """The video that a way leads to, or is followed to; -1 where that is not known."""
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
    """The map as a figure whose frames move the trace "now" along the ways.

    Every point carries customdata [kind, index, step, thumbnail]: a kind of KINDS, its index among the texts, videos or
    ways, the step counted from 0 (None for a video), and the address of its video's picture or "".

    Args:
        pairs: whether lines join the texts with their videos.
        step: where "now" is at first, counted from 0; the last without one.
        chosen: the kind and index of what is to stand out, as custom data has them. If that has a way, "now" moves
            along this way and those beside it alone.
        beside: the indices of ways to compare it with.

    Raises:
        InputError: there is no such theme, step, or thing to choose.
    """
    palette = palette_of(theme)
    steps, count, size = map.paths.shape
    step = steps - 1 if step is None else step
    if count and not 0 <= step < steps:
        raise InputError(f"There is no step {step}: the ways have {steps} points, counted from 0.")
    stands_out = _stands_out(map, labels, chosen)
    fast = len(map.texts) + len(map.videos) + steps * count > _MANY
    faded = 0.3 if stands_out["path"] else 1.0
    figure = go.Figure()
    if pairs:
        figure.add_trace(_pair_lines(map, labels, palette, fast))
    figure.add_trace(_texts(map, labels, palette, fast))
    figure.add_trace(_videos(map, labels, palette, fast))
    if count:
        figure.add_trace(
            _trajectories(map, labels, np.arange(count), palette, fast, name="way of a text", opacity=faded)
        )
    if beside:
        figure.add_trace(
            _trajectories(map, labels, np.array(beside), palette, False, name="way beside it", width=2, size=7)
        )
    if stands_out["path"]:
        index = np.array(stands_out["path"])
        figure.add_trace(_trajectories(map, labels, index, palette, False, name="chosen way", width=3, size=9))
    if stands_out["text"] or stands_out["video"]:
        figure.add_trace(_rings(map, labels, stands_out, palette))
    if count:
        moving = [*stands_out["path"], *beside] or range(count)
        figure.add_trace(_now(map, labels, moving, step, palette))
        figure.frames = [
            go.Frame(name=str(at), data=[_now(map, labels, moving, at, palette)], traces=[len(figure.data) - 1])
            for at in range(steps)
        ]
        figure.update_layout(_controls(steps, step, redraw=size == 3))
    _set_axes(figure, map)
    ways = f", and the ways of {count} texts in {steps - 1} steps" if count else ""
    description = (
        f"Map ({map.kind}, {size} dimensions) of {len(map.texts)} texts (circles) and {len(map.videos)} videos "
        f"(squares){ways}. Distances on it are not distances of embeddings."
    )
    height = 620 if count else 540
    sides = 56 if size == 2 else 8
    margin = {"l": sides, "r": min(sides, 16), "b": 134 if count else 52}
    return styled(figure, theme, f"map-{map.kind}-{size}d", description, height, margin=margin)


def _stands_out(map: Map, labels: MapLabels, chosen: tuple[str, int] | None) -> dict[str, list[int]]:
    """The texts, videos and ways that belong to what is chosen."""
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    if chosen is None:
        return found
    kind, index = chosen
    sizes = {"text": len(map.texts), "video": len(map.videos), "path": map.paths.shape[1]}
    if kind not in sizes or not 0 <= index < sizes[kind]:
        raise InputError(f"The map has no {kind} {index} to choose.")
    if kind == "video":
        return {**found, "video": [index]}
    text = index if kind == "text" else labels.paths[index]
    if text >= 0:
        found |= {"text": [text]}
    video = int(labels.video_of[text]) if kind == "text" else labels.video_of_path(index)
    if video >= 0:
        found |= {"video": [video]}
    own = [path for path, start in enumerate(labels.paths) if start == text]
    return {**found, "path": own if kind == "text" else [index]}


def _trace(points: np.ndarray, fast: bool = False, **settings: Any) -> go.Scatter | go.Scattergl | go.Scatter3d:
    """Points (n, k) as a trace; rows that are not numbers break its line."""
    kind = go.Scatter3d if points.shape[1] == 3 else go.Scattergl if fast else go.Scatter
    if "hovertext" in settings:
        settings["hovertemplate"] = "%{hovertext}<extra></extra>"
    return kind(**dict(zip("xyz", points.T, strict=False)), **settings)


def _with_breaks(groups: np.ndarray) -> np.ndarray:
    """Lines (L, n, k) one after the other, each with a break behind it: (L * (n + 1), k)."""
    count, _, size = groups.shape
    return np.concatenate([groups, np.full((count, 1, size), np.nan)], axis=1).reshape(-1, size)


def _pair_lines(map: Map, labels: MapLabels, palette: Palette, fast: bool) -> Any:
    ends = np.stack([map.texts, map.videos[labels.video_of]], axis=1)
    line = {"color": palette.muted, "width": 1}
    return _trace(_with_breaks(ends), fast, name="pair", mode="lines", line=line, opacity=0.35, hoverinfo="skip")


def _texts(map: Map, labels: MapLabels, palette: Palette, fast: bool) -> Any:
    return _trace(
        map.texts,
        fast,
        name="text",
        mode="markers",
        marker=_marker(map, palette.text, "circle", len(map.texts)),
        hovertext=[caption(text) for text in labels.texts],
        customdata=[["text", index, 0, labels.thumbnail(int(video))] for index, video in enumerate(labels.video_of)],
    )


def _videos(map: Map, labels: MapLabels, palette: Palette, fast: bool) -> Any:
    return _trace(
        map.videos,
        fast,
        name="video",
        mode="markers",
        marker={**_marker(map, palette.video, "square", len(map.videos)), "line": {"color": palette.page, "width": 1}},
        hovertext=[caption(name) for name in labels.videos],
        customdata=[["video", index, None, labels.thumbnail(index)] for index in range(len(map.videos))],
    )


def _marker(map: Map, colour: str, symbol: str, count: int) -> dict[str, Any]:
    size = 8 if count <= 100 else 6 if count <= 1_000 else 4
    return {"color": colour, "symbol": symbol, "size": size - 3 * (map.texts.shape[1] == 3), "opacity": 0.7}


def _trajectories(
    map: Map,
    labels: MapLabels,
    index: np.ndarray,
    palette: Palette,
    fast: bool,
    *,
    name: str,
    width: int = 1,
    size: int = 5,
    opacity: float = 1.0,
) -> Any:
    """Some ways, coloured from the text's colour at their start to the video's at their end."""
    steps = len(map.paths)
    return _trace(
        _with_breaks(map.paths[:, index].transpose(1, 0, 2)),
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
    """Where some ways are at a step."""
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


def _rings(map: Map, labels: MapLabels, stands_out: dict[str, list[int]], palette: Palette) -> Any:
    texts, videos = stands_out["text"], stands_out["video"]
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
    """One unit is as long on every axis, but on UMAP's, whose coordinates mean nothing."""
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
        figure.update_layout({f"{axis}_{part}": value for axis in ("xaxis", "yaxis") for part, value in _FREE.items()})
    else:
        figure.update_yaxes(scaleanchor="x", scaleratio=1)


def _controls(steps: int, step: int, redraw: bool) -> dict[str, Any]:
    """A slider over the frames, and buttons that play and stop them. Three dimensions move by being drawn again."""
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
    where = {"type": "buttons", "direction": "left", "x": 0, "y": 0, "xanchor": "left", "yanchor": "top"}
    return {
        "sliders": [slider],
        "updatemenus": [{**where, "showactive": False, "pad": {"t": 58, "r": 0}, "buttons": buttons}],
    }

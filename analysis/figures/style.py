"""The look of every figure: colours that colour-blind readers tell apart, light and dark themes, hostile text."""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dits.common.errors import InputError

CONFIG = {"displaylogo": False, "responsive": True}
"""What plotly.js is told wherever a figure is drawn."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
"""What series differ in besides their colour."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_CLEAR = "rgba(0,0,0,0)"
_PANEL_HEIGHT = 128  # pixels of the axes of one of several panels
_PANEL_GAP = 88  # pixels between two rows of them, for tick labels and titles
_MANY_STEPS = 30  # above which curves have no markers


@dataclass(frozen=True)
class Palette:
    """The colours of one theme, after Okabe and Ito (2008).

    All but `grid` stand out from the page by 3 to 1 at least (WCAG 2.1, 1.4.11).

    Attributes:
        page: what the figure is made to lie on; its own background is clear.
        ink: of words and of what is chosen.
        muted: of what stays in the background, and of what was there before.
        grid: of grid lines.
        text: of texts.
        between: of a step half-way from text to video.
        video: of videos.
        series: of methods, and of what came after.
    """

    page: str
    ink: str
    muted: str
    grid: str
    text: str
    between: str
    video: str
    series: tuple[str, ...]

    @property
    def steps(self) -> list[list[float | str]]:
        """A colour scale from text to video."""
        return [[0.0, self.text], [0.5, self.between], [1.0, self.video]]


PALETTES = {
    "light": Palette(
        page="#ffffff",
        ink="#1f2430",
        muted="#6b7280",
        grid="#e5e7eb",
        text="#0072B2",
        between="#8f5f73",
        video="#D55E00",
        series=("#009E73", "#AA4499", "#1f2430"),
    ),
    "dark": Palette(
        page="#0b0f19",
        ink="#e6e8ee",
        muted="#9aa3b2",
        grid="#283041",
        text="#56B4E9",
        between="#c090a0",
        video="#E69F00",
        series=("#009E73", "#CC79A7", "#e6e8ee"),
    ),
}


def palette_of(theme: str) -> Palette:
    """The colours of a theme.

    Raises:
        InputError: there is no such theme.
    """
    if theme not in PALETTES:
        raise InputError(f"A figure's theme is one of {', '.join(PALETTES)}, not '{theme}'.")
    return PALETTES[theme]


def dark_colours() -> dict[str, str]:
    """The colour of the dark theme for each of the light one, which is all that the themes differ in."""
    return dict(zip(_colours(PALETTES["light"]), _colours(PALETTES["dark"]), strict=True))


def styled(figure: go.Figure, theme: str, name: str, description: str, height: int, **layout: Any) -> go.Figure:
    """The figure in the look of all: `name` is for files, `description` for those who cannot see it."""
    return figure.update_layout(
        template=_template(palette_of(theme)),
        meta={"name": name, "description": description, "theme": theme},
        height=height,
        **layout,
    )


def panels(
    titles: Sequence[str], columns: int = 1, panel_height: int = _PANEL_HEIGHT, legend: bool = True
) -> tuple[go.Figure, int]:
    """Axes under titles (plotly's markup), row by row, and the height of the whole in pixels.

    Side by side are two at most, which a telephone still shows.
    """
    rows = -(-len(titles) // columns)
    inner = rows * panel_height + (rows - 1) * _PANEL_GAP
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        vertical_spacing=_PANEL_GAP / inner if rows > 1 else 0,
        horizontal_spacing=0.2,
    )
    for annotation, axis in zip(figure.layout.annotations, figure.select_xaxes(), strict=False):
        annotation.update(x=axis.domain[0], xanchor="left", align="left", font={"size": 13}, yshift=2)
    margin = {"l": 48, "r": 16, "t": 88 if legend else 44, "b": 52}
    figure.update_layout(margin=margin, legend={"y": 1, "yref": "container", "yanchor": "top"})
    return figure, inner + margin["t"] + margin["b"]


def place(panel: int, columns: int = 1) -> dict[str, int]:
    """The row and column of a panel counted from 0, as plotly counts them."""
    return {"row": panel // columns + 1, "col": panel % columns + 1}


def step_names(count: int) -> list[str]:
    """What the S points of a way are called: t, then their number, and v₀ at last."""
    return ["t", *(str(step) for step in range(1, count - 1)), "v₀"][:count]


def step_axis(count: int, title: str = "step", ticks: int = 6) -> dict[str, Any]:
    """An x axis over the S points of a way."""
    stride = max(1, -(-(count - 1) // (ticks - 1)))
    shown = [*(step for step in range(0, count - 1, stride) if step <= count - 1 - stride), count - 1]
    names = step_names(count)
    margin = 0.04 * max(count - 1, 1)
    return {
        "title": title,
        "tickvals": shown,
        "ticktext": [names[step] for step in shown],
        "range": [-margin, count - 1 + margin],
    }


def curve(
    x: np.ndarray, y: Sequence[float] | np.ndarray, name: str, index: int, palette: Palette, colour: str | None = None
) -> go.Scatter:
    """A line whose colour, dashes and markers all tell it from those of another index."""
    colour = colour or palette.series[index % len(palette.series)]
    return go.Scatter(
        x=x,
        y=np.asarray(y),
        name=shortened(name, 40),
        mode="lines+markers" if len(x) <= _MANY_STEPS else "lines",
        line={"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
        marker={"color": colour, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 7},
    )


def caption(text: str, width: int = 44, lines: int = 6) -> str:
    """Anybody's text for plotly, which reads a subset of HTML: wrapped, at most so many lines, every sign itself."""
    wrapped = textwrap.wrap(_plain(text), width, max_lines=lines, placeholder=" …")
    return "<br>".join(html.escape(line) for line in wrapped)


def shortened(text: str, characters: int = 18) -> str:
    """The text's beginning on one line, for plotly, as a label beside a point or an axis."""
    plain = _plain(text)
    return html.escape(plain if len(plain) <= characters else plain[: characters - 1].rstrip() + "…")


def small(text: str) -> str:
    """Anybody's text in smaller letters, for plotly."""
    return f'<span style="font-size:11px">{caption(text, 60, 2)}</span>'


def as_plain(markup: str) -> str:
    """What a reader sees of `caption`, on one line."""
    return html.unescape(markup.replace("<br>", " "))


def faint(colour: str, opacity: float) -> str:
    """A colour "#rrggbb" that what is behind shines through."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _colours(palette: Palette) -> list[str]:
    *single, series = vars(palette).values()
    return [*single, *series]


def _plain(text: str) -> str:
    """Without line breaks, what turns the direction of writing or cannot be seen, and what UTF-8 has no bytes for."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())


def _template(palette: Palette) -> go.layout.Template:
    axis = {
        "gridcolor": palette.grid,
        "linecolor": palette.muted,
        "zerolinecolor": palette.grid,
        "zeroline": False,
        "title": {"font": {"size": 12}, "standoff": 8},
        "tickfont": {"size": 11},
        "automargin": True,
    }
    lines = {"showline": True, "ticks": "outside", "tickcolor": palette.muted, "ticklen": 4}
    solid = {"backgroundcolor": _CLEAR, "showbackground": False, "gridcolor": palette.grid, "linecolor": palette.muted}
    scene = {**solid, "zerolinecolor": palette.muted, "tickfont": {"size": 10}, "title": {"font": {"size": 12}}}
    controls = {"bgcolor": palette.page, "bordercolor": palette.muted, "font": {"color": palette.ink, "size": 12}}
    return go.layout.Template(
        layout={
            "paper_bgcolor": _CLEAR,
            "plot_bgcolor": _CLEAR,
            "font": {"family": _FONT, "size": 12, "color": palette.ink},
            "colorway": list(palette.series),
            "margin": {"l": 56, "r": 16, "t": 48, "b": 52},
            "xaxis": {**axis, **lines},
            "yaxis": {**axis, **lines},
            "scene": {f"{name}axis": scene for name in "xyz"},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
            "hoverlabel": {
                "bgcolor": palette.page,
                "bordercolor": palette.muted,
                "font": {"family": _FONT, "size": 12, "color": palette.ink},
                "align": "left",
                "namelength": -1,
            },
            "modebar": {"bgcolor": _CLEAR, "color": palette.muted, "activecolor": palette.ink},
            "sliderdefaults": {**controls, "activebgcolor": palette.muted, "tickcolor": palette.muted},
            "updatemenudefaults": controls,
            "annotationdefaults": {"font": {"color": palette.ink}, "showarrow": False},
        }
    )

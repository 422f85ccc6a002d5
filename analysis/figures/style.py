"""The style of all figures: colour-blind safe palettes, light and dark themes, escaping of untrusted text."""

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
"""The plotly.js configuration of all figures."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Series differ in these as well as in colour."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_CLEAR = "rgba(0,0,0,0)"
_PANEL_HEIGHT = 128  # pixels of the axes of a panel
_PANEL_GAP = 88  # pixels between two rows of panels, for tick labels and titles
_MANY_STEPS = 30  # steps above which curves have no markers


@dataclass(frozen=True)
class Palette:
    """The colours of a theme, after Okabe and Ito (2008).

    All but `grid` have a contrast of at least 3 to 1 with the page (WCAG 2.1, 1.4.11).

    Attributes:
        page: the page behind the figure, whose own background is transparent.
        ink: labels and chosen points.
        muted: background elements, and values before a change.
        grid: grid lines.
        text: texts.
        between: the middle step between text and video.
        video: videos.
        series: methods, and values after a change.
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
    """The dark theme's colour for each light colour. The themes do not differ otherwise."""
    return dict(zip(_colours(PALETTES["light"]), _colours(PALETTES["dark"]), strict=True))


def styled(figure: go.Figure, theme: str, name: str, description: str, height: int, **layout: Any) -> go.Figure:
    """The figure in the common style. `name` is for files, `description` for readers who cannot see the figure."""
    return figure.update_layout(
        template=_template(palette_of(theme)),
        meta={"name": name, "description": description, "theme": theme},
        height=height,
        **layout,
    )


def panels(
    titles: Sequence[str], columns: int = 1, panel_height: int = _PANEL_HEIGHT, legend: bool = True
) -> tuple[go.Figure, int]:
    """A figure of panels with titles (plotly's markup), row by row, and its height in pixels.

    Use at most two columns, which a phone can still show.
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
    """Plotly's row and column of a panel, which is counted from 0."""
    return {"row": panel // columns + 1, "col": panel % columns + 1}


def step_names(count: int) -> list[str]:
    """The names of the S points of a trajectory: t, the numbers of the steps, and v₀."""
    return ["t", *(str(step) for step in range(1, count - 1)), "v₀"][:count]


def step_axis(count: int, title: str = "step", ticks: int = 6) -> dict[str, Any]:
    """An x axis for the S points of a trajectory."""
    stride = max(1, -(-(count - 1) // (ticks - 1)))
    ticked = [*(step for step in range(0, count - 1, stride) if step <= count - 1 - stride), count - 1]
    names = step_names(count)
    margin = 0.04 * max(count - 1, 1)
    return {
        "title": title,
        "tickvals": ticked,
        "ticktext": [names[step] for step in ticked],
        "range": [-margin, count - 1 + margin],
    }


def curve(
    x: np.ndarray, y: Sequence[float] | np.ndarray, name: str, index: int, palette: Palette, colour: str | None = None
) -> go.Scatter:
    """A line whose colour, dashes and markers all depend on its index."""
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
    """Untrusted text for plotly, which reads a subset of HTML: escaped, and wrapped to at most `lines` lines."""
    wrapped = textwrap.wrap(_plain(text), width, max_lines=lines, placeholder=" …")
    return "<br>".join(html.escape(line) for line in wrapped)


def shortened(text: str, characters: int = 18) -> str:
    """The beginning of an untrusted text on one line, escaped for plotly, as a label of a point or an axis."""
    plain = _plain(text)
    return html.escape(plain if len(plain) <= characters else plain[: characters - 1].rstrip() + "…")


def small(text: str) -> str:
    """Untrusted text in small type, for plotly."""
    return f'<span style="font-size:11px">{caption(text, 60, 2)}</span>'


def as_plain(markup: str) -> str:
    """The plain text of `caption`'s markup, on one line."""
    return html.unescape(markup.replace("<br>", " "))


def faint(colour: str, opacity: float) -> str:
    """A colour "#rrggbb" with an opacity."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _colours(palette: Palette) -> list[str]:
    *single, series = vars(palette).values()
    return [*single, *series]


def _plain(text: str) -> str:
    """The text on one line, without invisible or bidirectional control characters and unencodable surrogates."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


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

"""Export of figures: the data as a table, and the figure as an HTML page."""

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import CONFIG, as_plain, palette_of

COLUMNS = ("trace", "x", "y", "z", "text")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Row = tuple[str, Any, Any, Any, str]


def figure_rows(figure: go.Figure) -> tuple[tuple[str, ...], list[Row]]:
    """The data of a figure as COLUMNS and rows, one row a point; z is empty in two dimensions.

    `trace` is the name of the trace, after that of the panel if there are several. Breaks between lines are omitted,
    since all lines of a trace have the same number of points. A heat map has one row a cell, with its value as z.
    """
    return COLUMNS, [row for trace in figure.data for row in _trace_rows(trace)]


def as_cell(value: Any) -> Any:
    """A value as a spreadsheet cell, with an apostrophe before texts that would be read as a formula.

    Captions, queries and file names are untrusted, and a formula may request an address.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def figure_html(figure: go.Figure, title: str) -> str:
    """A self-contained HTML page with the figure and its title, which works offline."""
    palette = palette_of(figure.layout.meta["theme"])
    description = html.escape(figure.layout.meta["description"])
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        include_mathjax=False,
        auto_play=False,
        config=CONFIG,
        default_width="100%",
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
body {{ margin: 0 auto; padding: 1rem; max-width: 60rem; background: {palette.page}; color: {palette.ink};
  font-family: system-ui, sans-serif; line-height: 1.5; }}
h1 {{ font-size: 1.25rem; margin: 0 0 0.5rem; }}
figure {{ margin: 0; }}
figcaption {{ font-size: 0.875rem; }}
</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<figure>
<div role="img" aria-label="{description}">{drawn}</div>
<figcaption>{description}</figcaption>
</figure>
</body>
</html>
"""


def _trace_rows(trace: Any) -> list[Row]:
    name = as_plain(": ".join(part for part in (trace.meta, trace.name) if part))
    if trace.type == "heatmap":
        return [
            (name, _number(x), _number(y), _number(value), as_plain(text))
            for y, values, texts in zip(trace.y, trace.z, trace.hovertext, strict=True)
            for x, value, text in zip(trace.x, values, texts, strict=True)
        ]
    depths = [None] * len(trace.x) if getattr(trace, "z", None) is None else trace.z
    texts = [""] * len(trace.x) if trace.hovertext is None else trace.hovertext
    points = zip(trace.x, trace.y, depths, texts, strict=True)
    return [
        (name, _number(x), _number(y), _number(z), as_plain(text))
        for x, y, z, text in points
        if x is not None and x == x  # no NaN: it breaks a line
    ]


def _number(value: Any) -> Any:
    """A NumPy number as a Python number, for any kind of table."""
    return value.item() if isinstance(value, np.generic) else value

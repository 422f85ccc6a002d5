"""A figure out of the app: its data as a table, and itself as a page of its own."""

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import CONFIG, as_plain, palette_of

COLUMNS = ("trace", "x", "y", "z", "text")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Row = tuple[str, Any, Any, Any, str]


def figure_rows(figure: go.Figure) -> tuple[tuple[str, ...], list[Row]]:
    """All that a figure draws as COLUMNS and rows, one for each point; z is empty where there are two dimensions.

    `trace` names the panel, where there are several, and the trace. Breaks in a line are left out: what they part has
    as many points as every other part. A heat map has a row for each cell, with its value as z.
    """
    return COLUMNS, [row for trace in figure.data for row in _trace_rows(trace)]


def as_cell(value: Any) -> Any:
    """A value as a cell for a spreadsheet: a text that would be taken for a formula gets an apostrophe before it.

    Captions, sentences and file names are anybody's, and a formula may ask an address.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def figure_html(figure: go.Figure, title: str) -> str:
    """One page with the figure under its title, which holds all it needs and works without a network."""
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
    return [(name, _number(x), _number(y), _number(z), as_plain(text)) for x, y, z, text in points if not _is_break(x)]


def _number(value: Any) -> Any:
    """A number as Python has it, so that a table of any kind can hold it."""
    return value.item() if isinstance(value, np.generic) else value


def _is_break(value: Any) -> bool:
    return value is None or value != value

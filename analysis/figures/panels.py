"""Panels: figures with a heading and a note, as the page and the report show them."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import plotly.graph_objects as go

from analysis.figures.export import as_cell, figure_rows
from analysis.figures.style import dark_colours


@dataclass(frozen=True)
class Panel:
    """A figure with a heading and a note.

    Attributes:
        name: the name of its files.
        heading: what it shows.
        note: how to read it, and its limits.
        draw: draws the figure, given `theme="light"` or `theme="dark"`.
        wide: whether it spans the whole width.
    """

    name: str
    heading: str
    note: str
    draw: Callable[..., go.Figure]
    wide: bool = False

    @cached_property
    def figure(self) -> go.Figure:
        """The figure in the light theme."""
        return self.draw(theme="light")

    @property
    def csv(self) -> str:
        """The data of the figure as CSV without formulas, safe for spreadsheets."""
        columns, rows = figure_rows(self.figure)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(map(as_cell, row) for row in rows)
        return text.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """The input of web/panels.js: the panel with its light figure, and the dark colour for each light one."""
        return {
            "name": self.name,
            "heading": self.heading,
            "note": self.note,
            "description": self.figure.layout.meta["description"],
            "figure": json.loads(self.figure.to_json()),
            "dark": dark_colours(),
            "csv": self.csv,
            "wide": self.wide,
        }

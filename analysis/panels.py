"""Panels: a figure with its heading and how far to trust it, as the page and the report show them."""

import csv
import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from analysis.figures import figure_rows, template

WEB = Path(__file__).resolve().parent / "web"


@dataclass(frozen=True)
class Panel:
    """A figure and what is said of it.

    Attributes:
        name: of its files.
        heading: what it shows.
        note: how to read it, and how far.
        figure: in the light theme.
        wide: whether it takes the whole width.
    """

    name: str
    heading: str
    note: str
    figure: go.Figure
    wide: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The panel as web/panels.js takes it."""
        return {
            "name": self.name,
            "heading": self.heading,
            "note": self.note,
            "description": self.figure.layout.meta["description"],
            "figure": json.loads(self.figure.to_json()),
            "dark": _dark_template(),
            "csv": figure_csv(self.figure),
            "wide": self.wide,
        }


def figure_csv(figure: go.Figure) -> str:
    """The data of a figure as CSV."""
    columns, rows = figure_rows(figure)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


@cache
def _dark_template() -> dict[str, Any]:
    return json.loads(template("dark").to_json())

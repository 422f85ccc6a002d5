"""Panels of figures as a Gradio component: drawn in the browser by analysis/web/panels.js, choices sent back."""

import json
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import plotly

from analysis.panels import WEB, Panel
from dits.errors import InputError
from ui.results import file_url

PLOTLY = Path(plotly.__file__).resolve().parent / "package_data" / "plotly.min.js"
"""The plotly.js that plotly ships: served from here, so that the page needs no network."""

_MAX_CHOSEN = 24

_ON_LOAD = """
%s
const address = element.querySelector("[data-plotly]").dataset.plotly;
const options = {
  plotly: () => (window.ditsPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.js could not be loaded"));
    document.head.append(script);
  })),
  source: async () => (await fetch(address)).text(),
  dark: () => document.body.classList.contains("dark"),
  onChoose: (name, points) => trigger("select", { name, points }),
};
const draw = () => drawPanels(element.querySelector(".panels"), JSON.parse(props.value || "[]"), options);
watch("value", draw);
draw();
"""


def figure_panels(name: str) -> gr.HTML:
    """The component, empty. Its value is what `panel_values` makes; `select` tells of points that were chosen."""
    return gr.HTML(
        "",
        html_template=f'<div data-plotly="{file_url(PLOTLY)}"></div><div class="panels"></div>',
        js_on_load=_ON_LOAD % (WEB / "panels.js").read_text(encoding="utf-8"),
        elem_id=name,
    )


def panel_values(panels: Sequence[Panel]) -> str:
    """What the component draws, as JSON."""
    return json.dumps([panel.as_dict() for panel in panels])


def choosing(event: gr.EventData) -> list[tuple[str, int]]:
    """The points that were chosen: their kind ("text", "video" or "path") and index.

    Raises:
        InputError: what the browser sent names no points.
    """
    sent = getattr(event, "points", None)
    try:
        points = [(str(kind), int(index)) for kind, index, *_ in sent[:_MAX_CHOSEN]]
    except (TypeError, ValueError) as error:
        raise InputError("No points were chosen: click one on a map.") from error
    return list(dict.fromkeys(points))

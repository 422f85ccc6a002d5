"""Panels of figures as a Gradio component: drawn in the browser by analysis/web/panels.js, choices sent back."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import plotly

from analysis.figures.panels import Panel
from analysis.web import WEB
from dits.common.errors import require
from ui.services.media import PLOTLY_ADDRESS

PLOTLY = Path(plotly.__file__).resolve().parent / "package_data" / "plotly.min.js"
"""The plotly.js that plotly ships: served from here, so that the page needs no network."""

MAX_CHOSEN = 24
"""Of the points that a lasso holds, so many are listed."""

_ON_LOAD = """
%s
const address = element.querySelector("[data-plotly]").dataset.plotly;
// Where a page has a base, plotly.js names what lines are cut off by with the page's address, as it is at that moment;
// ours changes, and nothing would be cut off. Gradio's base, "./", says nothing that the address does not.
document.querySelector("base")?.removeAttribute("href");
const loadPlotly = () => new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = address;
  script.onload = () => resolve(window.Plotly);
  script.onerror = () => {
    script.remove();
    window.ditsPlotly = undefined; // the next drawing tries again
    reject(new Error("plotly.js could not be loaded"));
  };
  document.head.append(script);
});
const dark = () => document.body.classList.contains("dark");
const options = {
  plotly: () => (window.ditsPlotly ??= loadPlotly()),
  source: async () => (await fetch(address)).text(),
  dark,
  onChoose: (name, points) => trigger("select", { name, points }),
};
let drawn = {};
const draw = () => {
  const wanted = { value: props.value || "[]", dark: dark() };
  if (wanted.value === drawn.value && wanted.dark === drawn.dark) return; // a second drawing would swallow clicks
  drawn = wanted;
  drawPanels(element.querySelector(".panels"), JSON.parse(wanted.value), options);
};
watch("value", draw);
draw();
new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
"""


SAY = "watch('value', () => window.dits?.shown(element));"
"""JavaScript of a component whose new value is said to those who cannot see it, and goes into the address."""

PLAY = """
watch("value", () => {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!still) element.querySelectorAll("video").forEach((video) => video.play().catch(() => {}));
  window.dits?.shown(element);
});
"""
"""JavaScript of a component whose clips play, unless the visitor wants nothing to move."""


@dataclass(frozen=True)
class Choice:
    """Points that were chosen in a figure.

    Attributes:
        figure: the name of its panel.
        points: their kinds ("text", "video" or "path"), indices and, on a way, steps: MAX_CHOSEN at most.
        of: how many were chosen.
    """

    figure: str
    points: tuple[tuple[str, int, int], ...]
    of: int


def figure_panels(name: str) -> gr.HTML:
    """The component, empty. Its value is what `panel_values` makes; `select` tells of points that were chosen."""
    return gr.HTML(
        "",
        html_template=f'<div data-plotly="{PLOTLY_ADDRESS}"></div><div class="panels"></div>',
        js_on_load=_ON_LOAD % (WEB / "panels.js").read_text(encoding="utf-8"),
        elem_id=name,
    )


def panel_values(panels: Sequence[Panel]) -> str:
    """What the component draws, as JSON."""
    return json.dumps([panel.as_dict() for panel in panels])


def choosing(event: gr.EventData) -> Choice:
    """The points that were chosen.

    Raises:
        InputError: what the browser sent names no points.
    """
    data = event._data if isinstance(event._data, dict) else {}  # anything may have been sent
    sent = data.get("points")
    require(isinstance(sent, list) and len(sent) > 0 and all(map(_is_point, sent)), "Click a point on a map to see it.")
    points = dict.fromkeys((kind, index, step or 0) for kind, index, step, *_ in sent)
    return Choice(str(data.get("name")), tuple(points)[:MAX_CHOSEN], len(points))


def unless_fresh(show: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """What shows a tab, told first whether the tab shows already what there is to show: then all stays as it is."""

    def shown(fresh: bool, *arguments: Any) -> Sequence[Any]:
        return gr.skip() if fresh else show(*arguments)

    return shown


def reveal(name: str) -> str:
    """JavaScript that scrolls an element into sight."""
    return f"() => {{ document.getElementById('{name}').scrollIntoView({{ block: 'nearest' }}); }}"


def _is_point(sent: Any) -> bool:
    """Whether it is [kind, index, step, ...], as figures' custom data are; a video has no step."""
    if not isinstance(sent, list) or len(sent) < 3:
        return False
    kind, index, step = sent[:3]
    return isinstance(kind, str) and type(index) is int and (step is None or type(step) is int)

"""Figure panels as a Gradio component. analysis/web/panels.js draws them and reports the points that are chosen."""

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
"""The plotly.js of the Python package, served by the app, so that the page needs no network."""

MAX_CHOSEN = 24
"""The maximum number of listed points of a lasso selection."""

_ON_LOAD = """
%s
const address = element.querySelector("[data-plotly]").dataset.plotly;
// With a <base>, plotly.js writes the current URL of the page into its clip paths. Our URL changes, so clipping would
// stop. Gradio's base, "./", is redundant.
document.querySelector("base")?.removeAttribute("href");
const loadPlotly = () => new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = address;
  script.onload = () => resolve(window.Plotly);
  script.onerror = () => {
    script.remove();
    window.ditsPlotly = undefined; // the next drawing loads it again
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
let current = {};
const draw = () => {
  const wanted = { value: props.value || "[]", dark: dark() };
  if (wanted.value === current.value && wanted.dark === current.dark) return; // drawing again would lose clicks
  current = wanted;
  drawPanels(element.querySelector(".panels"), JSON.parse(wanted.value), options);
};
watch("value", draw);
draw();
new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
"""

ANNOUNCE = "watch('value', () => window.dits?.shown(element));"
"""JavaScript that announces a new value to screen readers and writes it into the URL."""

PLAY = """
watch("value", () => {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!still) element.querySelectorAll("video").forEach((video) => video.play().catch(() => {}));
  window.dits?.shown(element);
});
"""
"""JavaScript that also plays the clips of a new value, unless the visitor prefers reduced motion."""


@dataclass(frozen=True)
class Choice:
    """The points that a visitor has chosen in a figure.

    Attributes:
        figure: the name of the panel.
        points: at most MAX_CHOSEN tuples of kind ("text", "video" or "path"), index and, for a path, step.
        total: the number of points that were chosen.
    """

    figure: str
    points: tuple[tuple[str, int, int], ...]
    total: int


def figure_panels(name: str) -> gr.HTML:
    """Return the empty component. Its values come from `panel_values`; its event `select` reports chosen points."""
    return gr.HTML(
        "",
        html_template=f'<div data-plotly="{PLOTLY_ADDRESS}"></div><div class="panels"></div>',
        js_on_load=_ON_LOAD % (WEB / "panels.js").read_text(encoding="utf-8"),
        elem_id=name,
    )


def panel_values(panels: Sequence[Panel]) -> str:
    """Return the panels as JSON, the value of the component."""
    return json.dumps([panel.as_dict() for panel in panels])


def read_choice(event: gr.EventData) -> Choice:
    """Return the chosen points of an event.

    Raises:
        InputError: the event has no valid points.
    """
    data = event._data if isinstance(event._data, dict) else {}  # clients can send anything
    items = data.get("points")
    valid = isinstance(items, list) and len(items) > 0 and all(map(_is_point, items))
    require(valid, "Click a point on a map to see it.")
    points = dict.fromkeys((kind, index, step or 0) for kind, index, step, *_ in items)
    return Choice(str(data.get("name")), tuple(points)[:MAX_CHOSEN], len(points))


def unless_fresh(show: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """Wrap the function that fills a tab: if its new first argument is true, the tab is up to date and is skipped."""

    def shown(fresh: bool, *arguments: Any) -> Sequence[Any]:
        return gr.skip() if fresh else show(*arguments)

    return shown


def reveal(name: str) -> str:
    """Return JavaScript that scrolls an element into view."""
    return f"() => {{ document.getElementById('{name}').scrollIntoView({{ block: 'nearest' }}); }}"


def _is_point(item: Any) -> bool:
    """Whether an item is [kind, index, step, ...] like the custom data of the figures; a video has no step."""
    if not isinstance(item, list) or len(item) < 3:
        return False
    kind, index, step = item[:3]
    return isinstance(kind, str) and type(index) is int and (step is None or type(step) is int)

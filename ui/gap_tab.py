"""The tab "Modality gap": a split's texts and videos before and after two methods, numbers first, maps second."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from analysis.figures import measure_curves, pair_histograms
from analysis.gap import MEASURES, pair_distances
from analysis.maps import map_panel
from analysis.panels import Panel
from analysis.report_files import heat_map_panel
from analysis.shift_figure import shift_panel
from ui.analysing import Analyst
from ui.analysis_html import chosen_html, gap_html
from ui.panels import choosing, figure_panels, panel_values
from ui.shown_errors import shown_errors

KINDS = {"Linear": "linear", "UMAP": "umap", "PCA": "pca"}
NOTE = (
    "**Do not measure distances on a map.** UMAP draws half a gap as wide as a whole one; how far each map can be "
    "trusted stands under it. Click a point, or select several with the lasso, to see their clips."
)


class GapTab:
    """What the tab shows, of an analyst that may still be waiting for the corpus."""

    def __init__(self, analyst: Callable[[], Analyst]) -> None:
        self._analyst = analyst

    def choices(self) -> tuple[Any, Any, Any]:
        """The splits and methods that there are."""
        analyst = self._analyst()
        methods = [(title, name) for name, title in analyst.methods.items()]
        names = list(analyst.methods)
        other = "shift" if names[0] != "shift" else names[-1]
        split = "test" if "test" in analyst.splits else analyst.splits[0]
        return (
            gr.Radio(choices=analyst.splits, value=split),
            gr.Dropdown(choices=methods, value=names[0]),
            gr.Dropdown(choices=methods, value=other),
        )

    def show(self, split: str, first: str, second: str, side: str, view: str, three: bool) -> tuple[str, Any, Any]:
        """The table, the figures of numbers, and the maps."""
        analyst = self._analyst()
        analyses = [analyst.analysis(split, method, side) for method in dict.fromkeys((first, second))]
        titles = [analyst.methods[a.flow.method] for a in analyses]
        flow = analyses[0].flow
        distances = {"text t": pair_distances(flow.points[0], flow.own_videos)}
        distances |= {
            f"{title} v₀": pair_distances(a.flow.points[-1], a.flow.own_videos)
            for title, a in zip(titles, analyses, strict=True)
        }
        curves = partial(
            measure_curves,
            analyses[0].reports[0],
            {name: measure.title for name, measure in MEASURES.items()},
            name=titles[0],
            other={title: a.reports[0] for title, a in zip(titles[1:], analyses[1:], strict=True)},
        )
        panels = [
            Panel(
                "pairs",
                "Distances of the pairs",
                "On unit vectors, before and after.",
                partial(pair_histograms, distances),
                wide=True,
            ),
            Panel("measures", "Measures against step", "Each panel has its own scale.", curves, wide=True),
            shift_panel(flow, analyses[0].shifts),
            heat_map_panel(analyses[0]),
        ]
        maps = [
            self._map(analyst, split, a.flow.method, title, view, three)
            for title, a in zip(titles, analyses, strict=True)
        ]
        return gap_html(analyses), panel_values(panels), panel_values(maps)

    def chosen(self, split: str, method: str, event: gr.EventData) -> str:
        """The clips of the points that were chosen on a map, and what lies nearest to the first of them."""
        analyst = self._analyst()
        return chosen_html(analyst.drawn(split, method), analyst.part(split), choosing(event))

    def _map(self, analyst: Analyst, split: str, method: str, title: str, view: str, three: bool) -> Panel:
        drawn = analyst.drawn(split, method)
        made, trusted = analyst.map((split, method), drawn, KINDS[view], 3 if three else 2)
        panel = map_panel(made, trusted, drawn.labels)
        return replace(panel, name=f"{panel.name}-{method}", heading=f"{title}. {panel.heading}", wide=False)


def build_gap_tab(tab: gr.Tab, analyst: Callable[[], Analyst], shared: dict[str, Any]) -> None:
    """Lays the tab out; `shared` are settings that all its events have."""
    handle = GapTab(analyst)
    gr.Markdown(
        "Texts and videos lie apart in the joint space. What two methods do to that gap, and what it does to retrieval."
    )
    with gr.Row():
        split = gr.Radio([], label="Split", elem_id="gap-split")
        first = gr.Dropdown([], label="Method", elem_id="gap-first")
        second = gr.Dropdown([], label="Beside it", elem_id="gap-second")
        side = gr.Radio(
            [("the mean of its frames", "mean"), ("its frames as pooled by its own text", "pooled")],
            value="mean",
            label="A clip is",
        )
    numbers = gr.HTML("", js_on_load=None, elem_id="gap-numbers")
    panels = figure_panels("gap-figures")
    gr.Markdown(NOTE)
    with gr.Row():
        view = gr.Radio(list(KINDS), value="Linear", label="Map", elem_id="gap-view")
        three = gr.Checkbox(False, label="In three dimensions")
    maps = figure_panels("gap-maps")
    chosen = gr.HTML("", js_on_load=None, elem_id="gap-chosen")

    inputs, outputs = [split, first, second, side, view, three], [numbers, panels, maps]
    show = shown_errors(handle.show)
    opened = tab.select(shown_errors(handle.choices), None, [split, first, second], **shared)
    opened.success(show, inputs, outputs, **shared)
    gr.on([control.input for control in inputs], show, inputs, outputs, **shared)
    maps.select(shown_errors(handle.chosen), [split, first], chosen, **shared)

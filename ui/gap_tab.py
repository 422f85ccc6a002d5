"""The tab "Modality gap": a split's texts and videos before and after two methods, numbers first, maps second."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from analysis.figures import measure_curves, pair_histograms
from analysis.gap import MEASURES, pair_distances
from analysis.maps import map_panel
from analysis.panels import Panel
from analysis.report import Analysis
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


_CURVES = ("l2", "cosine", "centroid_distance", "rmg", "separability", "cross_modal_neighbours")
_SPLIT = ("test", "validation")
_BESIDE = ("dits-l2", "shift")


class GapTab:
    """What the tab shows, of an analyst that may still be waiting for the corpus."""

    def __init__(self, analyst: Callable[[], Analyst]) -> None:
        self._analyst = analyst

    def choices(self, split: str | None, first: str | None, second: str | None) -> tuple[Any, Any, Any]:
        """The splits and methods that there are, and what is chosen of them: what was, or what is told most by."""
        analyst = self._analyst()
        names, splits = list(analyst.methods), analyst.splits
        methods = [(title, name) for name, title in analyst.methods.items()]
        return (
            gr.Radio(choices=splits, value=split if split in splits else _first(_SPLIT, splits)),
            gr.Dropdown(choices=methods, value=first if first in names else names[0]),
            gr.Dropdown(choices=methods, value=second if second in names else _first(_BESIDE, names)),
        )

    def show(self, split: str, first: str, second: str, side: str, view: str, three: bool) -> tuple[str, str, str]:
        """The table, the figures of numbers, and the maps."""
        analyst = self._analyst()
        names = list(dict.fromkeys((first, second)))
        analyses = {analyst.methods[name]: analyst.analysis(split, name, side) for name in names}
        shown = next(iter(analyses.values()))
        panels = [
            _distances(analyses),
            _curves(analyses),
            shift_panel(shown.flow, shown.shifts),
            heat_map_panel(shown),
        ]
        maps = [self._map(analyst, split, name, view, three) for name in names]
        return gap_html(analyses), panel_values(panels), panel_values(maps)

    def chosen(self, split: str, method: str, event: gr.EventData) -> str:
        """The clips of the points that were chosen on a map, and what lies nearest to the first of them."""
        analyst = self._analyst()
        return chosen_html(analyst.drawn(split, method), analyst.part(split), choosing(event))

    def _map(self, analyst: Analyst, split: str, method: str, view: str, three: bool) -> Panel:
        drawn = analyst.drawn(split, method)
        made, trusted = analyst.map((split, method), drawn, KINDS[view], 3 if three else 2)
        panel = map_panel(made, trusted, drawn.labels)
        heading = f"{analyst.methods[method]}. {panel.heading}"
        return replace(panel, name=f"{panel.name}-{method}", heading=heading, wide=False)


def _distances(analyses: Mapping[str, Analysis]) -> Panel:
    flows = {title: analysis.flow for title, analysis in analyses.items()}
    before = next(iter(flows.values()))
    distances = {"text t": pair_distances(before.points[0], before.own_videos)}
    distances |= {f"{title} v₀": pair_distances(flow.points[-1], flow.own_videos) for title, flow in flows.items()}
    draw = partial(pair_histograms, distances)
    return Panel("pairs", "Distances of the pairs", "On unit vectors, before and after.", draw, wide=True)


def _curves(analyses: Mapping[str, Analysis]) -> Panel:
    (title, first), *others = analyses.items()
    draw = partial(
        measure_curves,
        first.reports[0],
        {name: MEASURES[name].title for name in _CURVES},
        name=title,
        other={other: analysis.reports[0] for other, analysis in others},
    )
    return Panel("measures", "Measures against step", "Each panel has its own scale.", draw, wide=True)


def _first(wanted: Sequence[str], there: Sequence[str]) -> str:
    """The first of what is wanted that is there; else the last that is there."""
    return next((name for name in wanted if name in there), there[-1])


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
    methods = [split, first, second]
    opened = tab.select(shown_errors(handle.choices), methods, methods, **shared)
    opened.success(show, inputs, outputs, **shared)
    gr.on([control.input for control in inputs], show, inputs, outputs, **shared)
    maps.select(shown_errors(handle.chosen), [split, first], chosen, **shared)

"""The tab "Modality gap": the captions and clips of a split before and after two methods, in numbers and on maps."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from analysis.figures import measure_curves, pair_histograms
from analysis.figures.map_panels import map_panel
from analysis.figures.panels import Panel
from analysis.figures.shift import shift_panel
from analysis.flow import VIDEO_SIDES
from analysis.measures.analysis import Analysis
from analysis.measures.gap import MEASURES, pair_distances
from analysis.report.panels import heat_map_panel
from dits.common.errors import DitsError, require
from ui.components.analysis_html import chosen_html, gap_html
from ui.components.deep_links import link_html
from ui.components.panels import ANNOUNCE, PLAY, figure_panels, panel_values, read_choice, reveal, unless_fresh
from ui.components.results import notice_html
from ui.runtime.background import BackgroundThreads, enter_background
from ui.services.analyses import Analyst, validated_choice

KINDS = {"Linear": "linear", "UMAP": "umap", "PCA": "pca"}
LINEAR = "Linear"
MAP_TITLES = {"linear": "Linear view, along the gap", "umap": "UMAP", "pca": "Principal components"}
NOTE = (
    "**Do not measure distances on a map.** The distance between two clouds in a UMAP is not the gap. The line below a "
    "map says how far you can trust it. Click a point, or select several with the lasso, to see the clips."
)

SIDES = {"mean of its frames": "mean", "frames pooled by its own caption": "pooled"}

NO_PAIRS = (
    "The modality gap is measured on pairs of a caption and its video, but your videos have no captions. List the "
    "pairs in a CSV file and start the app with --corpus FILE.csv. The demo clips have captions."
)

_CURVES = ("l2", "cosine", "centroid_distance", "rmg", "separability", "cross_modal_neighbours")
_SPLIT = ("test", "validation")
_BESIDE = ("dits-l2", "shift")


class GapHandlers:
    """The event handlers of the tab; see `ui.tabs.trajectory.TrajectoryHandlers`."""

    def __init__(self, analyst: Callable[[str | None], Analyst]) -> None:
        self._analyst = analyst
        self._warming = threading.Lock()

    def opened(
        self,
        seen: Any,
        numbers: str,
        split: str | None,
        first: str | None,
        second: str | None,
        source: str | None = None,
    ) -> tuple[Any, ...]:
        """Open the tab: return the state that is seen now, whether the tab is up to date, and its inputs.

        The inputs keep the current choice of split and methods, or have the default choice.
        """
        analyst = self._analyst(source)
        now = (tuple(analyst.methods), analyst.key)
        fresh = bool(numbers) and seen == now
        if not analyst.has_captions:
            return now, fresh, gr.skip(), gr.skip(), gr.skip()
        methods = [(title, name) for name, title in analyst.methods.items()]
        split, first, second = self._chosen(analyst, split, first, second)
        return (
            now,
            fresh,
            gr.Radio(choices=analyst.splits, value=split),
            gr.Dropdown(choices=methods, value=first),
            gr.Dropdown(choices=methods, value=second),
        )

    def show(
        self, split: str, first: str, second: str, side: str, view: str, three: bool, source: str | None = None
    ) -> tuple[str, str, str, str]:
        """Return the table, the figures of numbers, the maps, and no chosen points."""
        analyst = self._analyst(source)
        if not analyst.has_captions:
            return notice_html(NO_PAIRS), "[]", "[]", ""
        validated_choice(split, analyst.splits, "split")
        for method in (first, second):
            validated_choice(method, analyst.methods, "method")
        validated_choice(side, VIDEO_SIDES, "vector of a clip")
        validated_choice(view, KINDS, "map")
        numbers, figures = analyst.pages(
            ("measures", split, first, second, side), lambda: _measures(analyst, split, first, second, side)
        )
        maps = ("maps", split, first, second, view, bool(three))
        map_panels = analyst.pages(maps, lambda: _maps(analyst, split, first, second, view, bool(three)))
        values = {"split": split, "method": first, "beside": second, "side": side, "map": view, "three": bool(three)}
        return link_html("gap", **values) + numbers, figures, map_panels, ""

    def chosen(self, split: str, first: str, second: str, event: gr.EventData, source: str | None = None) -> str:
        """Return the clips of the points that are chosen on a map, and the nearest neighbours of the first point."""
        analyst, choice = self._analyst(source), read_choice(event)
        require(analyst.has_captions, NO_PAIRS)
        method = second if choice.figure.endswith(f"-{second}") else first
        return chosen_html(analyst.drawn_flow(split, method), analyst.clips(split), choice, analyst.media)

    def warm(self) -> None:
        """Compute the default page of the tab in a background thread, unless one is running."""
        if self._warming.acquire(blocking=False):
            threading.Thread(target=self._warm, name="gap-tab", daemon=True).start()

    def _warm(self) -> None:
        try:
            enter_background()
            self.show(*self._chosen(self._analyst(None), None, None, None), "mean", next(iter(KINDS)), False)
        except DitsError:
            pass  # the visitor sees the error when the tab opens
        finally:
            self._warming.release()

    def _chosen(
        self, analyst: Analyst, split: str | None, first: str | None, second: str | None
    ) -> tuple[str, str, str]:
        names, splits = list(analyst.methods), analyst.splits
        require(len(splits) > 0, f"No split of the corpus '{analyst.engine.corpus.name}' has two clips to compare.")
        return (
            split if split in splits else _first(_SPLIT, splits),
            first if first in names else names[0],
            second if second in names else _first(_BESIDE, names),
        )


def _measures(analyst: Analyst, split: str, first: str, second: str, side: str) -> tuple[str, str]:
    """The table and the figures of numbers."""
    analyses = {analyst.methods[name]: analyst.analysis(split, name, side) for name in (first, second)}
    main = next(iter(analyses.values()))
    panels = [_distances(analyses), _curves(analyses), shift_panel(main.flow, main.shifts), heat_map_panel(main)]
    return gap_html(analyses), panel_values(panels)


def _maps(analyst: Analyst, split: str, first: str, second: str, view: str, three: bool) -> str:
    """The map of each method; the linear view, which shows no false structure, is added to other views."""
    return panel_values(
        [
            _map(analyst, split, name, kind, three)
            for kind in dict.fromkeys((view, LINEAR))
            for name in dict.fromkeys((first, second))
        ]
    )


def _map(analyst: Analyst, split: str, method: str, view: str, three: bool) -> Panel:
    drawn = analyst.drawn_flow(split, method)
    projected, trusted = analyst.map((split, method), drawn, KINDS[view], 3 if three else 2)
    panel = map_panel(projected, trusted, drawn.labels)
    heading = f"{analyst.methods[method]}: {MAP_TITLES[projected.kind]}"
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
    return Panel("measures", "Measures by step", "Each panel has its own scale.", draw, wide=True)


def _first(preferred: Sequence[str], available: Sequence[str]) -> str:
    """The first preferred name that is available, otherwise the last available name."""
    return next((name for name in preferred if name in available), available[-1])


def build_gap_tab(
    tab: gr.Tab,
    source: gr.State,
    analyst: Callable[[str | None], Analyst],
    background: BackgroundThreads,
    shared: dict[str, Any],
) -> tuple[GapHandlers, dict[str, Any]]:
    """Build the tab; return its handlers, and its controls by their names in links.

    Args:
        source: the state with the source to search.
        analyst: returns the analyst of a source.
        background: runs the handlers.
        shared: settings of all events of the tab.
    """
    handle = GapHandlers(analyst)
    gr.Markdown(
        "Texts and videos lie apart in the joint space. Compare how two methods change this gap and the retrieval."
    )
    with gr.Row():
        split = gr.Radio([], label="Split", elem_id="gap-split", min_width=230)
        first = gr.Dropdown([], label="Method", elem_id="gap-first", min_width=130)
        second = gr.Dropdown([], label="Compare with", elem_id="gap-second", min_width=130)
        side = gr.Radio(list(SIDES.items()), value="mean", label="Vector of a clip", elem_id="gap-side", min_width=290)
    numbers = gr.HTML("", js_on_load=ANNOUNCE, elem_id="gap-numbers", min_height=120)
    panels = figure_panels("gap-figures")
    gr.Markdown(NOTE)
    with gr.Row():
        view = gr.Radio(list(KINDS), value=LINEAR, label="Map", elem_id="gap-view", min_width=280)
        three = gr.Checkbox(False, label="3D map", elem_id="gap-three", min_width=200)
    maps = figure_panels("gap-maps")
    chosen = gr.HTML("", js_on_load=PLAY, elem_id="gap-chosen")
    seen, fresh = gr.State(None), gr.State(False)

    inputs, outputs = [split, first, second, side, view, three, source], [numbers, panels, maps, chosen]
    shared = {**shared, "show_progress_on": [numbers, maps]}
    last = {**shared, "trigger_mode": "always_last"}  # a change during a computation is computed after it
    methods, show = [split, first, second], background(handle.show)
    opened = tab.select(background(handle.opened), [seen, numbers, *methods, source], [seen, fresh, *methods], **shared)
    opened.success(unless_fresh(show), [fresh, *inputs], outputs, **shared)
    gr.on([control.input for control in inputs[:-1]], show, inputs, outputs, **last)
    picked = maps.select(background(handle.chosen), [*methods, source], chosen, **last)
    picked.success(None, None, None, js=reveal("gap-chosen"))
    return handle, {
        "split": split, "method": first, "beside": second, "side": side, "map": view, "three": three
    }  # fmt: skip

"""The tab "Trajectory": the steps of a query and its trajectory on a map of the corpus."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import torch

from analysis.figures import bump_chart, query_curves
from analysis.figures.map_panels import DrawnFlow, map_panel
from analysis.figures.panels import Panel
from analysis.figures.trajectory import followed_map, trajectory_panel
from analysis.flow import Flow
from analysis.measures.trajectory import path_measures, ranks_by_step
from analysis.projections.projection import add_path
from analysis.projections.trust import trust
from dits.common.errors import require
from ui.components.analysis_html import chosen_html, trajectory_html
from ui.components.deep_links import link_html
from ui.components.panels import ANNOUNCE, PLAY, figure_panels, panel_values, read_choice, reveal, unless_fresh
from ui.components.results import notice_html
from ui.runtime.background import BackgroundThreads
from ui.services.analyses import Analyst, validated_choice
from ui.tabs.gap import KINDS, LINEAR, MAP_TITLES

STARTS = 3
"""The number of Gaussian starts of the diffusion baseline."""

MAX_STEPS = 40
"""The maximum number of steps T'."""

NO_DIFFUSION = "There are no weights of the diffusion baseline for this encoder (diffusion.safetensors)."

NO_CAPTIONS = "Your videos have no captions. The circles on the map are captions of the demo clips."


class TrajectoryHandlers:
    """The event handlers of the tab. Their last argument is the source to search, see `ui.services.sources.Sources`.

    Args:
        analyst: returns the analyst of a source; it may wait until the corpus is loaded.
    """

    def __init__(self, analyst: Callable[[str | None], Analyst]) -> None:
        self._analyst = analyst

    def opened(
        self, seen: Any, numbers: str, query: str, own: str, method: str | None, source: str | None = None
    ) -> tuple[Any, ...]:
        """Open the tab: return the new `seen`, whether the tab is up to date, its query, methods and "Compare" box.

        A new query of the search tab replaces the query of this tab.
        """
        analyst = self._analyst(source)
        titles = analyst.methods
        now = (query, tuple(titles), analyst.key)
        own = query if seen is None or seen[0] != query or not own.strip() else own
        chosen = method if method in [*titles] else next(iter(titles))
        unavailable = gr.Checkbox(False, interactive=False, info=NO_DIFFUSION)
        beside = gr.Checkbox(interactive=True) if "diffusion" in titles else unavailable
        methods = gr.Dropdown(choices=[(title, name) for name, title in titles.items()], value=chosen)
        return now, bool(numbers) and seen == now, own, methods, beside

    def settings(self, method: str, source: str | None = None) -> tuple[Any, Any, Any]:
        """Return the controls of T', noise and seed, which are active for DITS only."""
        active = self._analyst(source).is_dits(method)
        return gr.Slider(interactive=active), gr.Slider(interactive=active), gr.Number(interactive=active)

    def show(
        self,
        query: str,
        method: str,
        steps: int,
        noise: float,
        seed: int,
        beside: bool,
        view: str,
        three: bool,
        source: str | None = None,
    ) -> tuple[str, str, str]:
        """Return the table of steps, the figures, and no chosen points."""
        analyst = self._analyst_of(query, source)
        validated_choice(view, KINDS, "map")
        flows = self._flows(analyst, query, method, steps, noise, seed, beside)
        key = ("trajectory", flows[0].texts, method, steps, noise, seed, bool(beside), view, bool(three))
        settings = {"steps": int(steps), "noise": float(noise), "seed": int(seed)} if analyst.is_dits(method) else {}
        values = {"q": query, "method": method, "beside": bool(beside), "map": view, "three": bool(three), **settings}
        link = link_html("trajectory", **values, **{"in": "own" if source else None})
        numbers, panels = analyst.pages(key, lambda: _page(analyst, flows, method, view, bool(three)))
        return link + numbers, panels, ""

    def chosen(
        self,
        query: str,
        method: str,
        steps: int,
        noise: float,
        seed: int,
        beside: bool,
        event: gr.EventData,
        source: str | None = None,
    ) -> str:
        """Return the clips of the chosen points, and the nearest neighbours of the first point in the full space."""
        choice, analyst = read_choice(event), self._analyst_of(query, source)
        flows = self._flows(analyst, query, method, steps, noise, seed, beside)
        return chosen_html(_drawn(analyst, method, flows), analyst.engine.corpus, choice, analyst.media)

    def _analyst_of(self, query: str, source: str | None) -> Analyst:
        require(isinstance(query, str), "The query must be a text.")
        return self._analyst(source).for_query(query)

    def _flows(
        self, analyst: Analyst, query: str, method: str, steps: int, noise: float, seed: int, beside: bool
    ) -> list[Flow]:
        """The trajectory of the query, and those of the diffusion baseline if `beside`."""
        flow = self._flow(analyst, query, method, steps, noise, seed)
        require(not beside or "diffusion" in analyst.methods, NO_DIFFUSION)
        others = [analyst.query_flow(query, "diffusion", seed=start) for start in range(STARTS) if beside]
        return [flow, *(other.with_points(other.points[1:], "diffusion, from noise") for other in others)]

    def _flow(self, analyst: Analyst, query: str, method: str, steps: int, noise: float, seed: int) -> Flow:
        validated_choice(method, analyst.methods, "method")
        if not analyst.is_dits(method):
            return analyst.query_flow(query, method)
        require(_is_whole(steps) and 0 <= steps <= MAX_STEPS, f"T' must be a whole number from 0 to {MAX_STEPS}.")
        require(_is_number(noise) and 0 <= noise <= 1, "The noise must be a number from 0 to 1.")
        require(_is_whole(seed) and 0 <= seed < 2**32, "The seed must be a whole number from 0 to 4,294,967,295.")
        return analyst.query_flow(query, method, int(steps), float(noise), int(seed))


def build_trajectory_tab(
    tab: gr.Tab,
    search_query: gr.Textbox,
    source: gr.State,
    analyst: Callable[[str | None], Analyst],
    background: BackgroundThreads,
    shared: dict[str, Any],
) -> dict[str, Any]:
    """Build the tab and return its controls by their names in links; see `ui.tabs.gap.build_gap_tab`."""
    handle = TrajectoryHandlers(analyst)
    gr.Markdown(
        "The sampler moves your query step by step. See how far it moves, which clips lead at each step, and its "
        "trajectory on a map of the corpus."
    )
    with gr.Row(equal_height=True):
        query = gr.Textbox("", label="Query", scale=5, min_width=280, max_lines=3, elem_id="trajectory-query")
        button = gr.Button("Show trajectory", variant="primary", scale=1, min_width=110)
    with gr.Row():
        method = gr.Dropdown([], label="Method", elem_id="trajectory-method", min_width=200)
        steps = gr.Slider(
            0, MAX_STEPS, value=10, step=1, label="Steps T' (DITS)", info="10 in training", elem_id="trajectory-steps",
            min_width=250,
        )  # fmt: skip
        noise = gr.Slider(
            0, 1, value=0, step=0.1, label="Noise scale (DITS)", info="0 in training; 1 in the paper",
            elem_id="trajectory-noise", min_width=250,
        )  # fmt: skip
        seed = gr.Number(0, precision=0, minimum=0, label="Noise seed", elem_id="trajectory-seed", min_width=130)
    with gr.Row():
        view = gr.Radio(list(KINDS), value=LINEAR, label="Map", elem_id="trajectory-view", min_width=280)
        three = gr.Checkbox(False, label="3D map", elem_id="trajectory-three", min_width=200)
        beside = gr.Checkbox(
            False,
            label=f"Compare with diffusion from {STARTS} Gaussian starts",
            elem_id="trajectory-beside",
            min_width=280,
        )
    numbers = gr.HTML("", js_on_load=ANNOUNCE, elem_id="trajectory-numbers", min_height=120)
    panels = figure_panels("trajectory-figures")
    chosen = gr.HTML("", js_on_load=PLAY, elem_id="trajectory-chosen")
    seen, fresh = gr.State(None), gr.State(False)

    sampling = [method, steps, noise, seed]
    inputs, outputs = [query, *sampling, beside, view, three, source], [numbers, panels, chosen]
    shared = {**shared, "show_progress_on": [numbers, panels]}
    last = {**shared, "trigger_mode": "always_last"}  # a change during a computation is computed after it
    show = background(handle.show)
    opened = tab.select(
        background(handle.opened),
        [seen, numbers, search_query, query, method, source],
        [seen, fresh, query, method, beside],
        **shared,
    )
    opened.success(unless_fresh(show), [fresh, *inputs], outputs, **shared)
    method.change(background(handle.settings), [method, source], [steps, noise, seed], **last)
    events = [query.submit, button.click, method.input, steps.release, noise.release, seed.submit, beside.input]
    gr.on([*events, view.input, three.input], show, inputs, outputs, **last)
    picked = panels.select(background(handle.chosen), [query, *sampling, beside, source], chosen, **last)
    picked.success(None, None, None, js=reveal("trajectory-chosen"))
    return {
        "method": method, "steps": steps, "noise": noise, "seed": seed, "beside": beside, "map": view, "three": three
    }  # fmt: skip


def _page(analyst: Analyst, flows: list[Flow], method: str, view: str, three: bool) -> tuple[str, str]:
    """The table and the figures of the tab."""
    flow, corpus = flows[0], analyst.engine.corpus
    panels = _maps(analyst, flows, method, view, three)
    if len(flow.points) > 1:
        names = [clip.title for clip in corpus]
        panels += [
            Panel(
                "places",
                "Ranks of the clips, step by step",
                "The clips that rank among the first eight at any step. The clip followed is highlighted.",
                partial(bump_chart, ranks_by_step(flow, 0), names, chosen=int(flow.video_of[0])),
            ),
            Panel(
                "trajectory",
                "The query, step by step",
                "In the full space: the cosines to the start, to the clip followed and to the nearest other clip, the "
                "share of the distance to the clip followed that is closed, and the length of each step.",
                partial(query_curves, path_measures(flow), 0),
            ),
        ]
    notice = "" if analyst.has_captions else notice_html(NO_CAPTIONS)
    return notice + trajectory_html(flows, corpus, analyst.media), panel_values(panels)


def _maps(analyst: Analyst, flows: list[Flow], method: str, view: str, three: bool) -> list[Panel]:
    """The map with all trajectories, and the first one alone if it moves; the linear view is added to other views."""
    landmarks, drawn = analyst.landmarks(method), _drawn(analyst, method, flows)
    first = len(landmarks.labels.paths)
    panels: list[Panel | None] = []
    for kind in dict.fromkeys((KINDS[view], KINDS[LINEAR])):
        base, trusted = analyst.map(("landmarks", method), landmarks, kind, 3 if three else 2)
        projected = add_path(landmarks.cloud, base, drawn.cloud.paths[:, first:])
        draw = partial(followed_map, projected, drawn.labels, first, range(first + 1, len(drawn.labels.paths)))
        figures = replace(trust(drawn.cloud, projected), seed_spread=trusted.seed_spread)
        panel = map_panel(projected, figures, drawn.labels)
        panels += [
            replace(panel, heading=MAP_TITLES[projected.kind], draw=draw, wide=False),
            trajectory_panel(projected, drawn.labels, first),
        ]
        if projected.kind == KINDS[LINEAR]:  # stands in for a UMAP of few points
            break
    return list(filter(None, panels))


def _drawn(analyst: Analyst, method: str, flows: list[Flow]) -> DrawnFlow:
    """The landmarks of the map with the trajectories."""
    landmarks = analyst.landmarks(method)
    steps = len(landmarks.cloud.paths)
    paths = torch.cat([_resampled(flow.points, steps) for flow in flows], dim=1).numpy()
    names = [f"{flow.texts[0]} ({flow.method})" for flow in flows]
    return landmarks.with_paths(paths, names, [int(flow.video_of[0]) for flow in flows])


def _resampled(points: torch.Tensor, steps: int) -> torch.Tensor:
    """A trajectory (S, 1, d) resampled to `steps` points: the last point is repeated, or inner points are dropped."""
    rows = np.linspace(0, len(points) - 1, steps).round().astype(int) if len(points) > steps else range(len(points))
    chosen = points[list(rows)]
    return torch.cat([chosen, chosen[-1:].expand(steps - len(chosen), -1, -1)])


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

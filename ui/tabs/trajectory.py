"""The tab "Trajectory": one sentence's way over the map of the corpus, step by step."""

import math
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
from ui.components.panels import PLAY, SAY, choosing, figure_panels, panel_values, reveal, unless_fresh
from ui.components.results import notice_html
from ui.runtime.background import BackgroundThreads
from ui.services.analyses import Analyst, validated_choice
from ui.tabs.gap import KINDS, LINEAR, MAP_TITLES

STARTS = 3
"""Gaussian starts of the diffusion baseline that are drawn beside a sentence's way."""

MAX_STEPS = 40
"""The highest T' to choose."""

NO_DIFFUSION = "There are no weights of the diffusion baseline for this encoder (diffusion.safetensors)."


class TrajectoryTab:
    """What the tab shows, of an analyst that may still be waiting for the corpus.

    Args:
        analyst: gives it by what is searched, see `ui.services.sources.Sources`: the last argument of whatever is asked
        here.
    """

    def __init__(self, analyst: Callable[[str | None], Analyst]) -> None:
        self._analyst = analyst

    def opened(
        self, seen: Any, numbers: str, query: str, own: str, method: str | None, source: str | None = None
    ) -> tuple[Any, ...]:
        """When the tab opens: what it has seen now, whether all that is shown is fresh, and what there is to choose.

        The sentence on the search tab is taken over where it is another than the one seen before.
        """
        analyst = self._analyst(source)
        titles = analyst.methods
        now = (query, tuple(titles), analyst.key)
        own = query if seen is None or seen[0] != query or not own.strip() else own
        chosen = method if method in [*titles] else next(iter(titles))
        there = "diffusion" in titles
        beside = gr.Checkbox(interactive=True) if there else gr.Checkbox(False, interactive=False, info=NO_DIFFUSION)
        methods = gr.Dropdown(choices=[(title, name) for name, title in titles.items()], value=chosen)
        return now, bool(numbers) and seen == now, own, methods, beside

    def settings(self, method: str, source: str | None = None) -> tuple[Any, Any, Any]:
        """T', noise and seed can be chosen for DITS alone."""
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
        """The table of steps, the figures, and no chosen points."""
        analyst = self._over(query, source)
        validated_choice(view, KINDS, "map")
        flows = self._flows(analyst, query, method, steps, noise, seed, beside)
        asked = ("way", flows[0].texts, method, steps, noise, seed, bool(beside), view, bool(three))
        settings = {"steps": int(steps), "noise": float(noise), "seed": int(seed)} if analyst.is_dits(method) else {}
        shown = {"q": query, "method": method, "beside": bool(beside), "map": view, "three": bool(three), **settings}
        link = link_html("trajectory", **shown, **{"in": "own" if source else None})
        numbers, panels = analyst.pages(asked, lambda: _page(analyst, flows, method, view, bool(three)))
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
        """The clips of the points that were chosen, and what lies nearest to the first of them in the full space."""
        choice, analyst = choosing(event), self._over(query, source)
        flows = self._flows(analyst, query, method, steps, noise, seed, beside)
        return chosen_html(_drawn(analyst, method, flows), analyst.engine.corpus, choice, analyst.media)

    def _over(self, query: str, source: str | None) -> Analyst:
        require(isinstance(query, str), "The sentence must be a text.")
        return self._analyst(source).over(query)

    def _flows(
        self, analyst: Analyst, query: str, method: str, steps: int, noise: float, seed: int, beside: bool
    ) -> list[Flow]:
        """The sentence's way, and those of the diffusion baseline beside it."""
        flow = self._flow(analyst, query, method, steps, noise, seed)
        require(not beside or "diffusion" in analyst.methods, NO_DIFFUSION)
        others = [analyst.query_flow(query, "diffusion", seed=start) for start in range(STARTS) if beside]
        return [flow, *(other.moved(other.points[1:], "diffusion, from noise") for other in others)]

    def _flow(self, analyst: Analyst, query: str, method: str, steps: int, noise: float, seed: int) -> Flow:
        validated_choice(method, analyst.methods, "method")
        if not analyst.is_dits(method):
            return analyst.query_flow(query, method)
        require(_is_whole(steps) and 0 <= steps <= MAX_STEPS, f"T' is a whole number from 0 to {MAX_STEPS} here.")
        require(_is_number(noise) and 0 <= noise <= 1, "The noise is a number from 0 to 1 here.")
        require(_is_whole(seed) and 0 <= seed < 2**32, "The seed is a whole number from 0 to 4,294,967,295.")
        return analyst.query_flow(query, method, int(steps), float(noise), int(seed))


def build_trajectory_tab(
    tab: gr.Tab,
    search_query: gr.Textbox,
    source: gr.State,
    analyst: Callable[[str | None], Analyst],
    background: BackgroundThreads,
    shared: dict[str, Any],
) -> dict[str, Any]:
    """Lays the tab out and returns its controls by their names in links; see `ui.tabs.gap.build_gap_tab`."""
    handle = TrajectoryTab(analyst)
    gr.Markdown(
        "What each step of the sampler does to a sentence: where it stands, which clips lead, and how that looks on a "
        "map of the corpus."
    )
    with gr.Row(equal_height=True):
        query = gr.Textbox("", label="Sentence", scale=5, min_width=280, max_lines=3, elem_id="way-query")
        button = gr.Button("Follow", variant="primary", scale=1, min_width=110)
    with gr.Row():
        method = gr.Dropdown([], label="Method", elem_id="way-method", min_width=200)
        steps = gr.Slider(
            0, MAX_STEPS, value=10, step=1, label="T' of DITS", info="10 in training", elem_id="way-steps",
            min_width=250,
        )  # fmt: skip
        noise = gr.Slider(
            0, 1, value=0, step=0.1, label="Noise of DITS", info="none in training here; 1 is the paper's",
            elem_id="way-noise", min_width=250,
        )  # fmt: skip
        seed = gr.Number(0, precision=0, minimum=0, label="Seed of the noise", elem_id="way-seed", min_width=130)
    with gr.Row():
        view = gr.Radio(list(KINDS), value=LINEAR, label="Map", elem_id="way-view", min_width=280)
        three = gr.Checkbox(False, label="In three dimensions", elem_id="way-three", min_width=200)
        beside = gr.Checkbox(
            False, label=f"Beside it: diffusion from {STARTS} Gaussian starts", elem_id="way-beside", min_width=280
        )
    numbers = gr.HTML("", js_on_load=SAY, elem_id="way-numbers", min_height=120)
    panels = figure_panels("way-figures")
    chosen = gr.HTML("", js_on_load=PLAY, elem_id="way-chosen")
    seen, fresh = gr.State(None), gr.State(False)

    sampling = [method, steps, noise, seed]
    inputs, outputs = [query, *sampling, beside, view, three, source], [numbers, panels, chosen]
    shared = {**shared, "show_progress_on": [numbers, panels]}
    last = {**shared, "trigger_mode": "always_last"}  # whoever changes their mind meanwhile sees what they chose last
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
    picked.success(None, None, None, js=reveal("way-chosen"))
    return {
        "method": method, "steps": steps, "noise": noise, "seed": seed, "beside": beside, "map": view, "three": three
    }  # fmt: skip


def _page(analyst: Analyst, flows: list[Flow], method: str, view: str, three: bool) -> tuple[str, str]:
    """The table and the figures."""
    flow, corpus = flows[0], analyst.engine.corpus
    panels = _maps(analyst, flows, method, view, three)
    if len(flow.points) > 1:
        names = [clip.title for clip in corpus]
        panels += [
            Panel(
                "places",
                "Places of the clips, step by step",
                "The clips that are among the first eight at any step; the one that is followed stands out.",
                partial(bump_chart, ranks_by_step(flow, 0), names, chosen=int(flow.video_of[0])),
            ),
            Panel(
                "way",
                "Where the sentence goes",
                "In the full space: cosines with where it was, with the clip followed and with the nearest other clip; "
                "then how much of the distance to the clip followed is gone, and how long each step is.",
                partial(query_curves, path_measures(flow), 0),
            ),
        ]
    return _lead(analyst) + trajectory_html(flows, corpus, analyst.media), panel_values(panels)


def _lead(analyst: Analyst) -> str:
    """What one has to know of a corpus without captions, or of a part of one."""
    if analyst.has_captions:
        return ""
    return notice_html(
        "Your videos have no sentences of their own: the circles on the map are those of the demo clips, which show "
        "where sentences lie."
    )


def _maps(analyst: Analyst, flows: list[Flow], method: str, view: str, three: bool) -> list[Panel]:
    """The map of the corpus with the ways on it, and the first way alone where it moves; the linear view beside any."""
    landmarks, whole = analyst.landmarks(method), _drawn(analyst, method, flows)
    first = len(landmarks.labels.paths)
    panels: list[Panel | None] = []
    for kind in dict.fromkeys((KINDS[view], KINDS[LINEAR])):
        base, trusted = analyst.map(("landmarks", method), landmarks, kind, 3 if three else 2)
        made = add_path(landmarks.cloud, base, whole.cloud.paths[:, first:])
        draw = partial(followed_map, made, whole.labels, first, range(first + 1, len(whole.labels.paths)))
        figures = replace(trust(whole.cloud, made), seed_spread=trusted.seed_spread)
        panel = map_panel(made, figures, whole.labels)
        panels += [
            replace(panel, heading=MAP_TITLES[made.kind], draw=draw, wide=False),
            trajectory_panel(made, whole.labels, first),
        ]
        if made.kind == KINDS[LINEAR]:  # stands in for a UMAP of few points
            break
    return list(filter(None, panels))


def _drawn(analyst: Analyst, method: str, flows: list[Flow]) -> DrawnFlow:
    """The map's landmarks with the ways."""
    landmarks = analyst.landmarks(method)
    steps = len(landmarks.cloud.paths)
    paths = torch.cat([_as_long(flow.points, steps) for flow in flows], dim=1).numpy()
    return landmarks.with_paths(paths, [_name(flow) for flow in flows], [int(flow.video_of[0]) for flow in flows])


def _as_long(points: torch.Tensor, steps: int) -> torch.Tensor:
    """A way (S, 1, d) with as many points as the map's: its last point stays, or its middle ones are thinned out."""
    kept = np.linspace(0, len(points) - 1, steps).round().astype(int) if len(points) > steps else range(len(points))
    chosen = points[list(kept)]
    return torch.cat([chosen, chosen[-1:].expand(steps - len(chosen), -1, -1)])


def _name(flow: Flow) -> str:
    return f"{flow.texts[0]} ({flow.method})"


def _is_whole(value: Any) -> bool:
    return _is_number(value) and float(value).is_integer()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

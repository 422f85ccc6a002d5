"""The tab "Trajectory": one sentence's way over the map of the corpus, step by step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import torch

from analysis.figures import bump_chart, query_curves
from analysis.flow import Flow
from analysis.maps import map_panel
from analysis.panels import Panel
from analysis.projection import add_path
from analysis.projection_trust import trust
from analysis.trajectory import path_measures, ranks_by_step
from dits.errors import require
from ui.analysing import Analyst
from ui.analysis_html import chosen_html, way_html
from ui.gap_tab import KINDS
from ui.panels import choosing, figure_panels, panel_values
from ui.shown_errors import shown_errors

STARTS = 3
"""Gaussian starts of the diffusion baseline that are drawn beside a sentence's way."""


class TrajectoryTab:
    """What the tab shows, of an analyst that may still be waiting for the corpus."""

    def __init__(self, analyst: Callable[[], Analyst]) -> None:
        self._analyst = analyst

    def choices(self, query: str, own: str, method: str | None) -> tuple[str, Any]:
        """The sentence searched for, where none was typed here, and the methods that there are."""
        titles = self._analyst().methods
        chosen = method if method in titles else next(iter(titles))
        return own.strip() or query, gr.Dropdown(
            choices=[(title, name) for name, title in titles.items()], value=chosen
        )

    def show(
        self, query: str, method: str, steps: int, noise: float, seed: int, beside: bool, view: str, three: bool
    ) -> tuple[str, str]:
        """The table of steps, and the figures."""
        analyst = self._analyst()
        flow = self._flow(analyst, query, method, steps, noise, seed)
        others = self._diffusion(analyst, query) if beside else []
        corpus = analyst.engine.corpus
        names = [clip.captions[0] for clip in corpus]
        ranks, target = ranks_by_step(flow, 0), int(flow.video_of[0])
        panels = [
            self._map(analyst, [flow, *others], method, view, three),
            Panel(
                "places",
                "Places of the clips, step by step",
                "The clips that are among the first eight at any step; the one that is followed stands out.",
                partial(bump_chart, ranks, names, chosen=target),
            ),
            Panel(
                "way",
                "Where the sentence goes",
                "In the full space: cosines with where it was, with the clip followed and with the nearest other clip.",
                partial(query_curves, path_measures(flow), 0),
            ),
        ]
        return way_html([flow, *others], corpus), panel_values(panels)

    def chosen(self, method: str, event: gr.EventData) -> str:
        """The clips of the points that were chosen on the map."""
        analyst = self._analyst()
        return chosen_html(analyst.landmarks(method), analyst.engine.corpus, choosing(event))

    def _flow(self, analyst: Analyst, query: str, method: str, steps: int, noise: float, seed: int) -> Flow:
        if not analyst.is_dits(method):
            return analyst.query_flow(query, method)
        require(0 <= steps <= 40, f"T' is from 0 to 40 here, not {steps}.")
        return analyst.query_flow(query, method, int(steps), float(noise), int(seed))

    def _diffusion(self, analyst: Analyst, query: str) -> list[Flow]:
        require("diffusion" in analyst.methods, "There are no weights of the diffusion baseline for this encoder.")
        return [analyst.query_flow(query, "diffusion", seed=seed) for seed in range(STARTS)]

    def _map(self, analyst: Analyst, flows: list[Flow], method: str, view: str, three: bool) -> Panel:
        drawn, kind, size = analyst.landmarks(method), KINDS[view], 3 if three else 2
        base, _ = analyst.map(("landmarks", method), drawn, kind, size)
        steps = len(drawn.cloud.paths)
        paths = torch.cat([_as_long(flow.points, steps) for flow in flows], dim=1).numpy()
        made = add_path(drawn.cloud, base, paths)
        whole = drawn.with_paths(paths, [_name(flow) for flow in flows])
        new = ("path", len(drawn.labels.paths))
        return replace(map_panel(made, trust(whole.cloud, made), whole.labels, new), wide=False)


def build_trajectory_tab(
    tab: gr.Tab,
    search_query: gr.Textbox,
    analyst: Callable[[], Analyst],
    shared: dict[str, Any],
) -> None:
    """Lays the tab out; see `ui.gap_tab.build_gap_tab`."""
    handle = TrajectoryTab(analyst)
    gr.Markdown(
        "What each step of the sampler does to a sentence: where it stands, which clips lead, and how that looks on a "
        "map of the corpus."
    )
    with gr.Row(equal_height=True):
        query = gr.Textbox("", label="Sentence", scale=5, min_width=280, max_lines=3, elem_id="way-query")
        button = gr.Button("Follow", variant="primary", scale=1, min_width=110)
    with gr.Row():
        method = gr.Dropdown([], label="Method", elem_id="way-method")
        steps = gr.Slider(0, 40, value=10, step=1, label="T' of DITS", info="10 in training", elem_id="way-steps")
        noise = gr.Slider(0, 1, value=0, step=0.1, label="Noise of DITS", info="none in training here; 1: the paper's")
        seed = gr.Number(0, precision=0, minimum=0, label="Seed of the noise")
    with gr.Row():
        view = gr.Radio(list(KINDS), value="Linear", label="Map", elem_id="way-view")
        three = gr.Checkbox(False, label="In three dimensions")
        beside = gr.Checkbox(False, label="Beside it: diffusion from three Gaussian starts", elem_id="way-beside")
    numbers = gr.HTML("", js_on_load=None, elem_id="way-numbers")
    panels = figure_panels("way-figures")
    chosen = gr.HTML("", js_on_load=None, elem_id="way-chosen")

    inputs, outputs = [query, method, steps, noise, seed, beside, view, three], [numbers, panels]
    show = shown_errors(handle.show)
    opened = tab.select(shown_errors(handle.choices), [search_query, query, method], [query, method], **shared)
    opened.success(show, inputs, outputs, **shared)
    events = [query.submit, button.click, method.input, steps.release, noise.release, seed.submit, beside.input]
    gr.on([*events, view.input, three.input], show, inputs, outputs, **shared)
    panels.select(shown_errors(handle.chosen), method, chosen, **shared)


def _as_long(points: torch.Tensor, steps: int) -> torch.Tensor:
    """A way (S, 1, d) with as many points as the map's: its last point stays, or its middle ones are thinned out."""
    kept = np.linspace(0, len(points) - 1, steps).round().astype(int) if len(points) > steps else range(len(points))
    chosen = points[list(kept)]
    return torch.cat([chosen, chosen[-1:].expand(steps - len(chosen), -1, -1)])


def _name(flow: Flow) -> str:
    return f"{flow.texts[0]} ({flow.method})"

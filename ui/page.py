"""The page: its tabs and its endpoints."""

import json
from typing import Any

import gradio as gr

from ui.api.endpoints import Api, add_endpoints
from ui.components.deep_links import names
from ui.components.panels import SAY
from ui.components.results import progress_html
from ui.components.validated_blocks import ValidatedBlocks
from ui.runtime.background import BackgroundThreads
from ui.services.engine_loading import EngineLoader
from ui.services.sources import Sources
from ui.tabs.about import build_about_tab
from ui.tabs.deep_link import DeepLinkOpener
from ui.tabs.gap import build_gap_tab
from ui.tabs.search import Handlers, build_search_tab
from ui.tabs.trajectory import build_trajectory_tab
from ui.tabs.videos import build_videos_tab
from ui.web import WEB

HEARD = (
    '<button class="skip">Skip to what is shown</button><p class="heard" role="status"></p>'
    '<p class="lost problem" role="alert" hidden>The server does not answer. The page tries again by itself and keeps '
    "what it shows; if this stays, check the connection and reload the page.</p>"
)
"""The first thing that the keyboard reaches, what screen readers say when something changes, and a lost connection."""


def build_app(loader: EngineLoader, sources: Sources, warm: bool = True) -> gr.Blocks:
    """The page and its endpoints; `warm`: the gap tab is made ready in the background after a first ranking."""
    handle, limits = Handlers(loader, sources), sources.libraries.limits
    opening = DeepLinkOpener(loader, sources)
    with ValidatedBlocks(title="DITS: search videos with a sentence", analytics_enabled=False) as app:
        source = gr.State(None)
        gr.HTML(HEARD, js_on_load=(WEB / "page.js").read_text(encoding="utf-8") % json.dumps(names()), elem_id="heard")
        gr.Markdown(
            "# Search videos with a sentence\n"
            "DITS moves the sentence's embedding, in a few learned steps, towards where its video lies, and ranks the "
            "clips by what it finds there.",
            elem_id="head",
        )
        status = gr.HTML(progress_html("Starting", 0, 1), js_on_load=SAY, elem_id="status")
        notice = gr.HTML("", js_on_load=None, elem_id="link-notice")
        with gr.Tabs() as tabs:
            with gr.Tab("Search", id="search"):
                search = build_search_tab(app, handle, status, source)
            with gr.Tab("Your videos", id="own"):
                tab, opened = build_videos_tab(tabs, search.where, sources.libraries, search.loaded, sources.choosable)
                search.show_after(opened)
            quiet: dict[str, Any] = {"concurrency_id": "analysis", "concurrency_limit": 1, "api_visibility": "private"}
            background = BackgroundThreads(threads=2)  # one for the tabs and one for the API
            analyst = opening.patient(sources.analyst)
            with gr.Tab("Trajectory", id="trajectory") as trajectory:
                way = build_trajectory_tab(trajectory, search.query, source, analyst, background, quiet)
            with gr.Tab("Modality gap", id="gap") as gap:
                gap_tab, pairs = build_gap_tab(gap, source, analyst, background, quiet)
            with gr.Tab("About", id="about"):
                build_about_tab()
        tabs.change(None, None, None, js="() => window.dits.address()", api_visibility="private")
        shown_first = opening.build(tabs, search, source, notice, {"trajectory": way, "gap": pairs})
        if warm and sources.main is None:
            shown_first.then(gap_tab.warm, None, None, api_visibility="private", show_progress="hidden")
        if limits:
            app.unload(tab.leave)
        add_endpoints(app, Api(sources), background)
    return app

"""The Gradio app: its tabs and the API endpoints."""

import json
from typing import Any

import gradio as gr

from ui.api.endpoints import Api, add_endpoints
from ui.components.deep_links import parameter_names
from ui.components.panels import ANNOUNCE
from ui.components.results import progress_html
from ui.components.validated_blocks import ValidatedBlocks
from ui.runtime.background import BackgroundThreads
from ui.services.engine_loading import EngineLoader
from ui.services.sources import Sources
from ui.tabs.about import build_about_tab
from ui.tabs.deep_link import DeepLinkOpener
from ui.tabs.gap import build_gap_tab
from ui.tabs.search import SearchHandlers, build_search_tab
from ui.tabs.trajectory import build_trajectory_tab
from ui.tabs.videos import build_videos_tab
from ui.web import WEB

ANNOUNCEMENTS = (
    '<button class="skip">Skip to content</button><p class="heard" role="status"></p>'
    '<p class="lost problem" role="alert" hidden>The server does not answer. The page keeps trying. '
    "If this message stays, check the connection and reload the page.</p>"
)
"""The skip link for keyboard users, the live region for screen readers, and the message about a lost connection."""


def build_app(loader: EngineLoader, sources: Sources, warm: bool = True) -> gr.Blocks:
    """Build the page and its endpoints; `warm`: compute the gap tab in the background after the first ranking."""
    handle, limits = SearchHandlers(loader, sources), sources.libraries.limits
    opener = DeepLinkOpener(loader, sources)
    with ValidatedBlocks(title="DITS: search videos with a sentence", analytics_enabled=False) as app:
        source = gr.State(None)
        script = (WEB / "page.js").read_text(encoding="utf-8") % json.dumps(parameter_names())
        gr.HTML(ANNOUNCEMENTS, js_on_load=script, elem_id="heard")
        gr.Markdown(
            "# Search videos with a sentence\n"
            "DITS moves the embedding of your sentence towards the videos in a few learned steps, then ranks the clips "
            "by their similarity to it.",
            elem_id="head",
        )
        status = gr.HTML(progress_html("Starting", 0, 1), js_on_load=ANNOUNCE, elem_id="status")
        notice = gr.HTML("", js_on_load=None, elem_id="link-notice")
        with gr.Tabs() as tabs:
            with gr.Tab("Search", id="search"):
                search = build_search_tab(app, handle, status, source)
            with gr.Tab("Your videos", id="own"):
                tab, opened = build_videos_tab(tabs, search.where, sources.libraries, search.loaded, sources.has_corpus)
                search.show_after(opened)
            quiet: dict[str, Any] = {"concurrency_id": "analysis", "concurrency_limit": 1, "api_visibility": "private"}
            background = BackgroundThreads(threads=2)  # one for the tabs and one for the API
            analyst = opener.wait_until_loaded(sources.analyst)
            with gr.Tab("Trajectory", id="trajectory") as trajectory:
                trajectory_controls = build_trajectory_tab(trajectory, search.query, source, analyst, background, quiet)
            with gr.Tab("Modality gap", id="gap") as gap:
                gap_tab, gap_controls = build_gap_tab(gap, source, analyst, background, quiet)
            with gr.Tab("About", id="about"):
                build_about_tab()
        tabs.change(None, None, None, js="() => window.dits.address()", api_visibility="private")
        controls = {"trajectory": trajectory_controls, "gap": gap_controls}
        first_search = opener.build(tabs, search, source, notice, controls)
        if warm and sources.main is None:
            first_search.then(gap_tab.warm, None, None, api_visibility="private", show_progress="hidden")
        if limits:
            app.unload(tab.leave)
        add_endpoints(app, Api(sources), background)
    return app

"""Opens the deep link of a page: its tab, its settings, and notices about invalid or unavailable values."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from dits.common.errors import DitsError
from ui.components.deep_links import Link
from ui.components.results import METHOD_NAMES, notice_html
from ui.services.analyses import Analyst
from ui.services.engine_loading import EngineLoader
from ui.services.sources import Sources
from ui.tabs.search import SearchTabParts

OWN_VIDEOS_NOTICE = (
    "The link is from a search of someone's own videos, and links do not contain videos. This page shows the same "
    "search over its own corpus. You can add videos in the tab Your videos."
)

_POLL = 0.3  # seconds


class DeepLinkOpener:
    """Opens links; the engine may still be loading."""

    def __init__(self, loader: EngineLoader, sources: Sources) -> None:
        self._loader, self._sources = loader, sources

    def wait_until_loaded(self, analyst: Callable[[str | None], Analyst]) -> Callable[[str | None], Analyst]:
        """Wrap `analyst` so that it first waits for the end of loading, for tabs that are opened early."""

        def loaded(own: str | None) -> Analyst:
            while not self._loader.finished:
                time.sleep(_POLL)
            return analyst(own)

        return loaded

    def build(
        self,
        tabs: gr.Tabs,
        search: SearchTabParts,
        source: gr.State,
        notice: gr.HTML,
        controls: Mapping[str, Mapping[str, Any]],
    ) -> Any:
        """Open the page's link when the engine is loaded, then show the first ranking; return that last event.

        Args:
            notice: shows which parts of the link are ignored.
            controls: the controls of each analysis tab, by their names in links.
        """

        def follow(link: Link, request: gr.Request) -> tuple[Any, ...]:
            own, where, missing = self._own(link, request.session_hash)
            values, unknown = self._settings(link, controls)
            notices = "".join(map(notice_html, (*link.problems, *missing, *unknown)))
            tab = gr.skip() if link.tab == "search" else gr.Tabs(selected=link.tab)
            return tab, own, where, notices, *values

        outputs = [control for of_tab in controls.values() for control in of_tab.values()]
        followed = search.loaded.success(
            follow,
            search.link,
            [tabs, source, search.where, notice, *outputs],
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
        )
        return search.show_first(followed)

    def _own(self, link: Link, session: str | None) -> tuple[Any, Any, list[str]]:
        """The source and its choice for a link to own videos, and notices."""
        if link.get("in", None) != "own" or not self._sources.has_corpus:
            return gr.skip(), gr.skip(), []
        library = self._sources.libraries.find(session)
        try:
            status = library.status() if library else None
        except DitsError:
            status = None
        if library is None or status is None or not status.videos:
            return gr.skip(), gr.skip(), [OWN_VIDEOS_NOTICE]
        return library.token, gr.Radio(value="own", visible=True), []

    def _settings(self, link: Link, controls: Mapping[str, Mapping[str, Any]]) -> tuple[list[Any], list[str]]:
        """An update for each control of the analysis tabs, and notices about unknown names."""
        updates: list[Any] = []
        unknown: list[str] = []
        choices = self._choices(link)
        for tab, of_tab in controls.items():
            for name, control in of_tab.items():
                value = link.get(name, None) if tab == link.tab else None
                if value is None:
                    updates.append(gr.skip())
                elif not isinstance(control, gr.Dropdown) and name != "split":
                    updates.append(type(control)(value=value))
                elif value in choices.get(name, {}):
                    updates.append(type(control)(choices=[(t, v) for v, t in choices[name].items()], value=value))
                else:
                    updates.append(gr.skip())
                    unknown.append(f"The link's '{name}' was ignored: this page does not have it.")
        if link.tab == "search":
            unknown += self._without_weights(link.get("method", "dits"))
        return updates, unknown

    def _choices(self, link: Link) -> dict[str, dict[str, str]]:
        """The available methods and splits with their titles, by the names of the parameters."""
        if link.tab not in ("trajectory", "gap") or not link.values:
            return {}
        try:
            analyst = self._sources.analyst(None)
        except DitsError:  # the status line shows the error
            return {}
        splits = {split: split for split in analyst.splits}
        return {"method": analyst.methods, "beside": analyst.methods, "split": splits}

    def _without_weights(self, method: str) -> list[str]:
        try:
            methods = self._sources.engine().methods
        except DitsError:  # the status line shows the error
            return []
        if method in methods or method == "dits":  # the default method needs no notice
            return []
        return [f"{METHOD_NAMES[method]} has no weights here. Another method is used."]

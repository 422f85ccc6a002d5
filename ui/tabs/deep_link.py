"""What happens when a page opens on a link: its tab, its settings, and what of it cannot be shown here."""

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
from ui.tabs.search import SearchTab

SOMEBODYS_OWN = (
    "The link is of a search of somebody's own videos, which no link carries: here is the same over what this page "
    "searches. Yours are added in the tab Your videos."
)

_POLL = 0.3  # seconds


class DeepLinkOpener:
    """Opens links, over an engine that may still be loading."""

    def __init__(self, loader: EngineLoader, sources: Sources) -> None:
        self._loader, self._sources = loader, sources

    def patient(self, analyst: Callable[[str | None], Analyst]) -> Callable[[str | None], Analyst]:
        """Gives the analyst once loading has ended, for tabs that are opened before."""

        def awaited(own: str | None) -> Analyst:
            while not self._loader.finished:
                time.sleep(_POLL)
            return analyst(own)

        return awaited

    def build(
        self,
        tabs: gr.Tabs,
        search: SearchTab,
        source: gr.State,
        notice: gr.HTML,
        controls: Mapping[str, Mapping[str, Any]],
    ) -> Any:
        """Opens the page's link once the engine is loaded, then shows a first ranking; the event that does.

        Args:
            notice: says what of the link is not shown.
            controls: of each analysis tab, by their names in links.
        """

        def follow(link: Link, request: gr.Request) -> tuple[Any, ...]:
            own, where, missing = self._own(link, request.session_hash)
            values, unknown = self._settings(link, controls)
            said = "".join(map(notice_html, (*link.problems, *missing, *unknown)))
            tab = gr.skip() if link.tab == "search" else gr.Tabs(selected=link.tab)
            return tab, own, where, said, *values

        every = [control for of_tab in controls.values() for control in of_tab.values()]
        followed = search.loaded.success(
            follow,
            search.link,
            [tabs, source, search.where, notice, *every],
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,
        )
        return search.show_first(followed)

    def _own(self, link: Link, session: str | None) -> tuple[Any, Any, list[str]]:
        """What is searched, where a link asks for somebody's own videos, and what there is to say of that."""
        if link.get("in", None) != "own" or not self._sources.choosable:
            return gr.skip(), gr.skip(), []
        library = self._sources.libraries.find(session)
        try:
            status = library.status() if library else None
        except DitsError:
            status = None
        if library is None or status is None or not status.videos:
            return gr.skip(), gr.skip(), [SOMEBODYS_OWN]
        return library.token, gr.Radio(value="own", visible=True), []

    def _settings(self, link: Link, controls: Mapping[str, Mapping[str, Any]]) -> tuple[list[Any], list[str]]:
        """An update for each control of the analysis tabs, and what a link names that is not here."""
        updates: list[Any] = []
        unknown: list[str] = []
        there = self._choices(link)
        for tab, of_tab in controls.items():
            for name, control in of_tab.items():
                value = link.get(name, None) if tab == link.tab else None
                if value is None:
                    updates.append(gr.skip())
                elif not isinstance(control, gr.Dropdown) and name != "split":
                    updates.append(type(control)(value=value))
                elif value in there.get(name, {}):
                    updates.append(type(control)(choices=[(t, v) for v, t in there[name].items()], value=value))
                else:
                    updates.append(gr.skip())
                    unknown.append(f"The link's '{name}' was left out: there is no such one here.")
        if link.tab == "search":
            unknown += self._without_weights(link.get("method", "dits"))
        return updates, unknown

    def _choices(self, link: Link) -> dict[str, dict[str, str]]:
        """What can be chosen of methods and splits, with their titles, by the parameters' names."""
        if link.tab not in ("trajectory", "gap") or not link.values:
            return {}
        try:
            analyst = self._sources.analyst(None)
        except DitsError:  # the status says so
            return {}
        splits = {split: split for split in analyst.splits}
        return {"method": analyst.methods, "beside": analyst.methods, "split": splits}

    def _without_weights(self, method: str) -> list[str]:
        try:
            there = self._sources.engine().methods
        except DitsError:  # the status says so
            return []
        if method in there or method == "dits":  # who asked for nothing is not told
            return []
        return [f"{METHOD_NAMES[method]} has no weights here: another method ranks."]

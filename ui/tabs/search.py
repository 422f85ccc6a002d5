"""The tab "Search" with the query and the ranking, and the events of an opening page."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import gradio as gr

from dits.common.errors import DitsError, require
from dits.search.engine import SearchEngine
from dits.search.query import MAX_RESULTS, check_top
from ui.components.deep_links import Link, read_link, write_link
from ui.components.examples import GAINS, LOSES, first_query, read_examples, target_clips
from ui.components.results import (
    METHOD_NAMES,
    comparison_html,
    error_html,
    method_choices,
    missing_html,
    prepare_label,
    progress_html,
    results_html,
    status_html,
    verdict,
    waiting_html,
)
from ui.runtime.error_messages import show_errors
from ui.runtime.queue import MAX_SEARCHES
from ui.services.engine_loading import EngineLoader
from ui.services.library import NO_VIDEOS
from ui.services.sources import Sources
from ui.services.weight_preparation import WeightPreparation
from ui.web import WEB

Method = Literal["dits", "xpool", "mean"]


class SearchHandlers:
    """The event handlers of the search tab; the engine may still be loading."""

    def __init__(self, loader: EngineLoader, sources: Sources) -> None:
        self.loader, self.sources = loader, sources
        self.preparer = WeightPreparation(loader)

    def show(self, query: str, method: Method, top: int, own: str | None = None) -> tuple[str, str]:
        """Return the ranking and the comparison of methods as HTML; `own` is the source to search, see `Sources`."""
        return show_errors(self._shown)(query, method, top, own)

    def show_first(self, query: str, method: Method, top: int, own: str | None = None) -> tuple[str, str]:
        """Return the first ranking, or an error message unless the status line already shows the error."""
        try:
            self.sources.engine(own)
        except DitsError:
            return "", ""
        try:
            return self._shown(query, method, top, own)
        except DitsError as error:
            return error_html(str(error)), ""

    def choose(self, where: str, request: gr.Request) -> tuple[str | None, str]:
        """Return the chosen source and its status line."""
        library = self.sources.libraries.find(request.session_hash) if where == "own" else None
        require(where != "own" or library is not None, NO_VIDEOS)
        own = library.token if library else None
        return own, status_html(self.sources.engine(own))

    def load(self, method: Method) -> Iterator[tuple[Any, Any]]:
        """Yield progress until the engine is loaded, then the status line and the methods, or an error message."""
        self.loader.start()
        shown = None
        while not self.loader.finished:
            if self.loader.progress != shown:
                shown = self.loader.progress
                yield progress_html(*shown), gr.skip()
            time.sleep(0.3)
        try:
            engine = self.sources.engine()
        except DitsError as error:
            yield error_html(str(error)), gr.skip()
        else:
            chosen = method if method in engine.methods else next(iter(engine.methods))
            yield status_html(engine), gr.Radio(value=chosen, **method_choices(engine))

    def prepare(self) -> Iterator[tuple[Any, ...]]:
        """Start to train the missing weights, and yield progress like `follow`."""
        show_errors(self.preparer.start)()
        yield from self.follow()

    def follow(self) -> Iterator[tuple[Any, ...]]:
        """Yield progress while weights are trained, then the status line, the methods and the offer of `_offer`."""
        shown = None
        while self.preparer.running:
            if self.preparer.progress != shown:
                shown = self.preparer.progress
                yield gr.skip(), gr.skip(), gr.Column(visible=True), progress_html(*shown), gr.Button(visible=False)
            time.sleep(0.3)
        try:
            engine = self.loader.engine()
        except DitsError:  # the status line shows the error
            yield tuple(gr.skip() for _ in range(5))
            return
        offer, button = self._offer(engine)
        choices = gr.Radio(**method_choices(engine))
        yield status_html(engine), choices, gr.Column(visible=bool(engine.missing)), offer, button

    def _shown(self, query: str, method: Method, top: int, own: str | None) -> tuple[str, str]:
        engine, media = self.sources.engine(own), self.sources.media(own)
        engine.require(method)
        require(isinstance(query, str), "The query must be a text.")
        whole = not isinstance(top, bool) and (isinstance(top, int) or (isinstance(top, float) and top.is_integer()))
        require(whole, "The number of results must be a whole number.")
        count = int(top)
        check_top(count)
        target = target_clips().get(query) if engine.corpus.name == "demo" else None
        results = engine.search_all(query, MAX_RESULTS if target else count)  # enough to contain the target
        first = replace(results[method], hits=results[method].hits[:count])
        values = {"q": None if query == first_query() else query, "method": method, "top": count}
        link = write_link("search", **values, **{"in": "own" if own else None})
        ranking = results_html(first, media, link, verdict(results, method, target))
        return ranking, comparison_html(results, method, media=media, target=target)

    def _offer(self, engine: SearchEngine) -> tuple[str, gr.Button]:
        """The message about methods without weights, and the button that trains them if that is possible."""
        if not engine.missing:
            return "", gr.Button(visible=False)
        problem = error_html(str(self.preparer.error)) if self.preparer.error else ""
        try:
            label = prepare_label(engine, self.preparer.minutes())
        except DitsError as error:
            return missing_html(engine) + error_html(str(error)), gr.Button(visible=False)
        return missing_html(engine) + problem, gr.Button(label, visible=True)


@dataclass(frozen=True)
class SearchTabParts:
    """The parts of the search tab that the page and other tabs use.

    Attributes:
        query: the query box.
        where: the choice of the source, "corpus" or "own".
        link: the state with the parsed deep link, a `ui.components.deep_links.Link`.
        loaded: the event after which the engine is loaded.
        show_first: shows the first ranking after an event.
        show_after: shows the ranking after an event.
    """

    query: gr.Textbox
    where: gr.Radio
    link: gr.State
    loaded: Any
    show_first: Callable[[Any], Any]
    show_after: Callable[[Any], Any]


def open_link(request: gr.Request) -> tuple[Any, ...]:
    """Return the deep link of the page's URL, and the query, the method and the number of results that it has."""
    link = read_link(dict(request.query_params))
    search = link.tab == "search"
    query, top = link.get("q", gr.skip()), link.get("top", gr.skip())
    return link, query, link.get("method", gr.skip()) if search else gr.skip(), top


def build_search_tab(app: gr.Blocks, handle: SearchHandlers, status: gr.HTML, source: gr.State) -> SearchTabParts:
    """Build the search tab and the events of an opening page."""
    link = gr.State(Link())
    with gr.Row(elem_id="ask"):
        query = gr.Textbox(
            first_query(), label="What should the clip show?", scale=5, min_width=200, max_lines=3, elem_id="query"
        )
        button = gr.Button("Search", variant="primary", scale=0, min_width=90)
        corpus = "The demo clips" if handle.loader.corpus == "demo" else "The corpus"
        where = gr.Radio(
            [(corpus, "corpus"), ("Your videos", "own")], value="corpus", label="Search in", visible=False,
            elem_id="where",
        )  # fmt: skip
        method = gr.Radio(
            [(METHOD_NAMES[name], name) for name in METHOD_NAMES], value="dits", label="Rank by", elem_id="method"
        )
        top = gr.Slider(1, 24, value=8, step=1, label="Results", elem_id="top")
    examples = _examples()
    with gr.Column(visible=False, elem_id="prepare") as panel:
        offer = gr.HTML("", js_on_load=None)
        make = gr.Button("Prepare", size="md")
    waiting, columns = waiting_html(8)
    with gr.Row(elem_id="found"):
        results = gr.HTML(waiting, js_on_load=(WEB / "results.js").read_text(encoding="utf-8"), elem_id="results")
        comparison = gr.HTML(columns, js_on_load=None, elem_id="comparison")

    inputs, outputs = [query, method, top, source], [results, comparison]
    queue: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": MAX_SEARCHES, "api_visibility": "private"}
    gr.on([query.submit, button.click, method.input, top.release], handle.show, inputs, outputs, **queue)
    for example in examples:
        example.click(lambda text: text, example, query, api_visibility="private", queue=False).then(
            handle.show, inputs, outputs, **queue
        )
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    prepared = [status, method, panel, offer, make]
    opened = app.load(open_link, None, [link, query, method, top], queue=False, **quiet)
    loaded = opened.then(handle.load, method, [status, method], **quiet)
    loaded.success(handle.follow, None, prepared, **quiet)
    make.click(handle.prepare, None, prepared, **quiet)
    show_first = lambda event: event.success(handle.show_first, inputs, outputs, **queue)  # noqa: E731
    show_after = lambda event: event.success(handle.show, inputs, outputs, **queue)  # noqa: E731
    show_after(where.change(show_errors(handle.choose), where, [source, status], **quiet))
    return SearchTabParts(query, where, link, loaded, show_first, show_after)


def _examples() -> list[gr.Button]:
    """A button for each example: first those on which methods differ, then one of each kind, the others folded."""
    kinds, buttons = read_examples(), []

    def row(label: str, queries: list[str]) -> None:
        with gr.Row(elem_classes="examples kind"):
            gr.Markdown(f"**{label}**", container=False)
            buttons.extend(gr.Button(query, size="sm", variant="secondary") for query in queries)

    telling = [kind for kind in (GAINS, LOSES) if kind in kinds]
    others = {kind: [e.query for e in examples] for kind, examples in kinds.items() if kind not in telling}
    for kind in telling:
        row(kind, [example.query for example in kinds[kind]])
    row("Also try", [queries[0] for queries in others.values()])
    with gr.Accordion("More to try", open=False, elem_id="more"):
        for kind, queries in others.items():
            row(kind, queries[1:])
    return buttons

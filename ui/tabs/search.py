"""The tab "Search": a sentence, and the clips that are ranked for it; what happens when the page opens."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import gradio as gr

from dits.common.errors import DitsError, require
from dits.search.engine import SearchEngine
from dits.search.query import MAX_RESULTS, check_top
from ui.components.deep_links import Link, read_link, written
from ui.components.examples import GAINS, LOSES, clips_asked_for, first_query, read_examples
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
from ui.runtime.error_messages import shown_errors
from ui.runtime.queue import SEARCHES
from ui.services.engine_loading import EngineLoader
from ui.services.library import NO_VIDEOS
from ui.services.sources import Sources
from ui.services.weight_preparation import WeightPreparation
from ui.web import WEB

Method = Literal["dits", "xpool", "mean"]


class Handlers:
    """What the page's events call, over an engine that may still be loading."""

    def __init__(self, loader: EngineLoader, sources: Sources) -> None:
        self.loader, self.sources = loader, sources
        self.preparer = WeightPreparation(loader)

    def show(self, query: str, method: Method, top: int, own: str | None = None) -> tuple[str, str]:
        """The ranking and the comparison of the methods, as HTML; `own` is what is searched, see `Sources`."""
        return shown_errors(self._shown)(query, method, top, own)

    def show_first(self, query: str, method: Method, top: int, own: str | None = None) -> tuple[str, str]:
        """The ranking of what the query box holds when loading ends, or why there is none where the status does not."""
        try:
            self.sources.engine(own)
        except DitsError:
            return "", ""
        try:
            return self._shown(query, method, top, own)
        except DitsError as error:
            return error_html(str(error)), ""

    def choose(self, where: str, request: gr.Request) -> tuple[str | None, str]:
        """What is searched from now on, and what the page runs on then."""
        library = self.sources.libraries.find(request.session_hash) if where == "own" else None
        require(where != "own" or library is not None, NO_VIDEOS)
        own = library.token if library else None
        return own, status_html(self.sources.engine(own))

    def load(self, method: Method) -> Iterator[tuple[Any, Any]]:
        """Progress until the engine is ready, then what it runs on and its methods, or why it does not."""
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
        """Starts making the weights that are missing, and follows."""
        shown_errors(self.preparer.start)()
        yield from self.follow()

    def follow(self) -> Iterator[tuple[Any, ...]]:
        """Progress while weights are made; then status, methods, and what is offered for methods without weights."""
        shown = None
        while self.preparer.running:
            if self.preparer.progress != shown:
                shown = self.preparer.progress
                yield gr.skip(), gr.skip(), gr.Column(visible=True), progress_html(*shown), gr.Button(visible=False)
            time.sleep(0.3)
        try:
            engine = self.loader.engine()
        except DitsError:  # the status says so
            yield tuple(gr.skip() for _ in range(5))
            return
        offer, button = self._offer(engine)
        choices = gr.Radio(**method_choices(engine))
        yield status_html(engine), choices, gr.Column(visible=bool(engine.missing)), offer, button

    def _shown(self, query: str, method: Method, top: int, own: str | None) -> tuple[str, str]:
        engine, media = self.sources.engine(own), self.sources.media(own)
        engine.require(method)
        text, count = _text(query), _count(top)
        check_top(count)
        asked = clips_asked_for().get(text) if engine.corpus.name == "demo" else None
        results = engine.search_all(text, MAX_RESULTS if asked else count)  # however low a method places that clip
        first = replace(results[method], hits=results[method].hits[:count])
        values = {"q": None if text == first_query() else text, "method": method, "top": count}
        link = written("search", **values, **{"in": "own" if own else None})
        shown = results_html(first, media, link, verdict(results, method, asked))
        return shown, comparison_html(results, method, media=media, asked=asked)

    def _offer(self, engine: SearchEngine) -> tuple[str, gr.Button]:
        """What is said of methods without weights, and the button that makes them, where it can."""
        if not engine.missing:
            return "", gr.Button(visible=False)
        problem = error_html(str(self.preparer.error)) if self.preparer.error else ""
        try:
            label = prepare_label(engine, self.preparer.minutes())
        except DitsError as error:
            return missing_html(engine) + error_html(str(error)), gr.Button(visible=False)
        return missing_html(engine) + problem, gr.Button(label, visible=True)


@dataclass(frozen=True)
class SearchTab:
    """What the page and other tabs need of the search tab.

    Attributes:
        query: the box.
        where: chooses what is searched: "corpus" or "own".
        link: holds what the page's address asks for, a `ui.components.deep_links.Link`.
        loaded: the event after which the engine is there.
        show_first: shows a first ranking after an event.
        show_after: shows the ranking after an event.
    """

    query: gr.Textbox
    where: gr.Radio
    link: gr.State
    loaded: Any
    show_first: Callable[[Any], Any]
    show_after: Callable[[Any], Any]


def open_link(request: gr.Request) -> tuple[Any, ...]:
    """What the page's address asks for, and the sentence, the method and the number of results that it gives."""
    link = read_link(dict(request.query_params))
    search = link.tab == "search"
    query, top = link.get("q", gr.skip()), link.get("top", gr.skip())
    return link, query, link.get("method", gr.skip()) if search else gr.skip(), top


def build_search_tab(app: gr.Blocks, handle: Handlers, status: gr.HTML, source: gr.State) -> SearchTab:
    """The search tab, and what happens when the page opens."""
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
    buttons = _examples()
    with gr.Column(visible=False, elem_id="prepare") as panel:
        offer = gr.HTML("", js_on_load=None)
        make = gr.Button("Prepare", size="md")
    waiting, columns = waiting_html(8)
    with gr.Row(elem_id="found"):
        results = gr.HTML(waiting, js_on_load=(WEB / "results.js").read_text(encoding="utf-8"), elem_id="results")
        comparison = gr.HTML(columns, js_on_load=None, elem_id="comparison")

    inputs, outputs = [query, method, top, source], [results, comparison]
    shared: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": SEARCHES, "api_visibility": "private"}
    gr.on([query.submit, button.click, method.input, top.release], handle.show, inputs, outputs, **shared)
    for example in buttons:
        example.click(lambda text: text, example, query, api_visibility="private", queue=False).then(
            handle.show, inputs, outputs, **shared
        )
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    prepared = [status, method, panel, offer, make]
    opened = app.load(open_link, None, [link, query, method, top], queue=False, **quiet)
    loaded = opened.then(handle.load, method, [status, method], **quiet)
    loaded.success(handle.follow, None, prepared, **quiet)
    make.click(handle.prepare, None, prepared, **quiet)
    show_first = lambda event: event.success(handle.show_first, inputs, outputs, **shared)  # noqa: E731
    show_after = lambda event: event.success(handle.show, inputs, outputs, **shared)  # noqa: E731
    show_after(where.change(shown_errors(handle.choose), where, [source, status], **quiet))
    return SearchTab(query, where, link, loaded, show_first, show_after)


def _examples() -> list[gr.Button]:
    """A button for each example: first what shows where methods differ, then one of every kind, the rest on request."""
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


def _text(value: Any) -> str:
    require(isinstance(value, str), "The query must be a text.")
    return value


def _count(value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    require(whole, "The number of results must be a whole number.")
    return int(value)

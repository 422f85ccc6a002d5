"""The tab "Search": a sentence, and the clips that are ranked for it; what happens when the page opens."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from dits.errors import DitsError, require
from dits.results import SearchResult
from dits.search import SearchEngine
from ui.examples import read_examples
from ui.library import NO_VIDEOS
from ui.loading import EngineLoader
from ui.media import Media
from ui.preparing import WeightsPreparer
from ui.results import (
    METHOD_NAMES,
    comparison_html,
    error_html,
    method_choices,
    missing_html,
    prepare_label,
    progress_html,
    results_html,
    status_html,
)
from ui.shown_errors import shown_errors
from ui.sources import Sources

UI = Path(__file__).resolve().parent
Method = Literal["dits", "xpool", "mean"]


class Handlers:
    """What the page's events call, over an engine that may still be loading."""

    def __init__(self, loader: EngineLoader, sources: Sources) -> None:
        self.loader, self.sources = loader, sources
        self.preparer = WeightsPreparer(loader)

    def show(self, query: str, method: Method, top: int, own: str | None = None) -> tuple[str, str]:
        """The ranking, and the comparison of the methods, as HTML; `own` says of what, see `ui.sources.Sources`."""
        results, media = shown_errors(self._ranked)(query, method, top, own)
        return results_html(results[method], media), comparison_html(results, method, media=media)

    def show_first(self, query: str, method: Method, top: int, own: str | None = None) -> tuple[Any, Any]:
        """The ranking of what the query box holds when loading ends, if it ended well and anything is there."""
        try:
            return self.show(query, method, top, own)
        except gr.Error:
            return gr.skip(), gr.skip()

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

    def _ranked(self, query: str, method: Method, top: int, own: str | None) -> tuple[dict[str, SearchResult], Media]:
        engine = self.sources.engine(own)
        engine.require(method)
        return engine.search_all(_text(query), _count(top)), self.sources.media(own)

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
    """What other tabs need of the search tab.

    Attributes:
        query: the box.
        where: chooses what is searched: "corpus" or "own".
        loaded: the event after which the engine is there.
        shown_first: the event that shows a first ranking.
        show_after: shows the ranking after an event.
    """

    query: gr.Textbox
    where: gr.Radio
    loaded: Any
    shown_first: Any
    show_after: Callable[[Any], Any]


def build_search_tab(app: gr.Blocks, handle: Handlers, status: gr.HTML, source: gr.State) -> SearchTab:
    """The search tab, and what happens when the page opens."""
    kinds = read_examples()
    first = [examples[0].query for examples in kinds.values()]
    gr.Markdown("Pick a result to see it larger at its best-matching moment.")
    with gr.Row(equal_height=True):
        query = gr.Textbox(
            first[0],
            label="What should the clip show?",
            scale=5,
            min_width=280,
            max_lines=3,
            elem_id="query",
        )
        button = gr.Button("Search", variant="primary", scale=1, min_width=110)
    with gr.Row(elem_classes="examples"):
        buttons = [gr.Button(text, size="sm", variant="secondary") for text in first]
    with gr.Accordion("More to try", open=False, elem_id="more"):
        for kind, examples in kinds.items():
            with gr.Row(elem_classes="examples kind"):
                gr.Markdown(f"**{kind}**", container=False)
                buttons += [gr.Button(e.query, size="sm", variant="secondary") for e in examples[1:]]
    with gr.Row():
        corpus = "The demo clips" if handle.loader.corpus == "demo" else "The corpus"
        where = gr.Radio(
            [(corpus, "corpus"), ("Your videos", "own")], value="corpus", label="Search in", visible=False,
            elem_id="where",
        )  # fmt: skip
        method = gr.Radio([(METHOD_NAMES[name], name) for name in METHOD_NAMES], value="dits", label="Rank by")
        top = gr.Slider(1, 24, value=8, step=1, label="Results")
    with gr.Column(visible=False, elem_id="prepare") as panel:
        offer = gr.HTML("", js_on_load=None)
        make = gr.Button("Prepare", size="md")
    results = gr.HTML("", js_on_load=(UI / "results.js").read_text(encoding="utf-8"), elem_id="results")
    comparison = gr.HTML("", js_on_load=None, elem_id="comparison")

    inputs, outputs = [query, method, top, source], [results, comparison]
    shared: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": 4, "api_visibility": "private"}
    gr.on([query.submit, button.click, method.input, top.release], handle.show, inputs, outputs, **shared)
    for example in buttons:
        example.click(lambda text: text, example, query, api_visibility="private", queue=False).then(
            handle.show, inputs, outputs, **shared
        )
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    prepared = [status, method, panel, offer, make]
    loaded = app.load(handle.load, method, [status, method], **quiet)
    shown_first = loaded.success(handle.show_first, inputs, outputs, **shared)
    loaded.success(handle.follow, None, prepared, **quiet)
    make.click(handle.prepare, None, prepared, **quiet)
    show_after = lambda event: event.success(handle.show, inputs, outputs, **shared)  # noqa: E731
    show_after(where.change(shown_errors(handle.choose), where, [source, status], **quiet))
    return SearchTab(query, where, loaded, shown_first, show_after)


def _text(value: Any) -> str:
    require(isinstance(value, str), "The query must be a text.")
    return value


def _count(value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    require(whole, "The number of results must be a whole number.")
    return int(value)

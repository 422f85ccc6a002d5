"""The Gradio app: wiring only. `python app.py` serves it; a Hugging Face Space starts it the same way."""

import argparse
import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio reads it: the app calls no one

import gradio as gr

from analysis.panels import WEB
from dits.errors import DitsError, require
from dits.index.location import is_index, location_of
from dits.results import SearchResult
from dits.search import SearchEngine
from ui.examples import read_examples
from ui.gap_tab import build_gap_tab
from ui.library import NO_VIDEOS, Library
from ui.loading import EngineLoader
from ui.media import Media, media_routes
from ui.panels import PLOTLY
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
from ui.trajectory_tab import build_trajectory_tab
from ui.videos_tab import build_videos_tab
from ui.visitors import Libraries, Limits, OwnLibrary, VisitorLibraries

UI = Path(__file__).resolve().parent / "ui"
Method = Literal["dits", "xpool", "mean"]


@dataclass(frozen=True)
class Settings:
    """What the app serves, and where."""

    corpus: str = "demo"
    encoder: str = "bundled"
    weights: Path | None = None
    host: str | None = None
    port: int | None = None
    warm: bool = True
    index: str | None = None
    hosted: bool = False


class Handlers:
    """What the page's events and the API call, over an engine that may still be loading."""

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

    def search(self, query: str, method: Method = "dits", top: int = 5, own: bool = False) -> dict[str, Any]:
        """Rank clips for a sentence.

        Args:
            query: What the clip shows, in a sentence.
            method: What ranks: dits, xpool or mean.
            top: How many results, from 1 to 100.
            own: Search the videos that you have added, on a run of your own, instead of the corpus.
        """
        result, media = shown_errors(self._found)(query, method, top, own)
        values = result.as_dict()
        for value, hit in zip(values["results"], result.hits, strict=True):
            del value["path"]
            value["video"] = media.video(hit.clip)
        return values

    def _found(self, query: str, method: Method, top: int, own: bool) -> tuple[SearchResult, Media]:
        source = self.sources.libraries.of(None).token if own is True else None
        return self.sources.engine(source).search(_text(query), method, _count(top)), self.sources.media(source)

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


def build_app(loader: EngineLoader, sources: Sources, warm: bool = True) -> gr.Blocks:
    """The page and its endpoints; `warm`: the gap tab is made ready in the background after a first ranking."""
    handle, limits = Handlers(loader, sources), sources.libraries.limits
    cache = (60, limits.idle) if limits else None  # of uploads that nobody added
    with gr.Blocks(title="DITS: search videos with a sentence", analytics_enabled=False, delete_cache=cache) as app:
        source = gr.State(None)
        gr.Markdown(
            "# Search videos with a sentence\n"
            "DITS moves the sentence's embedding, in a few learned steps, towards where its video lies, and ranks the "
            "clips by what it finds there."
        )
        status = gr.HTML(progress_html("Starting", 0, 1), js_on_load=None, elem_id="status")
        with gr.Tabs() as tabs:
            with gr.Tab("Search", id="search"):
                search = _build_search(app, handle, status, source)
            with gr.Tab("Your videos", id="own"):
                tab, opened = build_videos_tab(tabs, search.where, sources.libraries, search.loaded, sources.choosable)
                search.show_after(opened)
            quiet: dict[str, Any] = {"concurrency_id": "analysis", "concurrency_limit": 1, "api_visibility": "private"}
            with gr.Tab("Trajectory", id="trajectory") as trajectory:
                build_trajectory_tab(trajectory, search.query, source, sources.analyst, quiet)
            with gr.Tab("Modality gap", id="gap") as gap:
                gap_tab = build_gap_tab(gap, source, sources.analyst, quiet)
        if warm and sources.main is None:
            search.shown_first.then(gap_tab.warm, None, None, api_visibility="private", show_progress="hidden")
        if limits:
            app.unload(tab.leave)
        gr.api(handle.search, api_name="search", concurrency_id="search", concurrency_limit=4)
    return app


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


def _build_search(app: gr.Blocks, handle: Handlers, status: gr.HTML, source: gr.State) -> SearchTab:
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


def launch(settings: Settings, wait: bool = True) -> tuple[gr.Blocks, Sources]:
    """Starts loading, then serves the page, which shows the progress; `wait`: for as long as the process lives."""
    loader = EngineLoader(settings.corpus, settings.encoder, settings.weights)
    loader.start()
    main, libraries = _libraries(settings, loader)
    sources = Sources(loader, libraries, main)
    app = build_app(loader, sources, settings.warm)
    app.queue(max_size=64)
    limits = libraries.limits
    app.launch(
        server_name=settings.host,
        server_port=settings.port,
        allowed_paths=[str(path) for path in (*loader.media, PLOTLY)],
        theme=gr.themes.Soft(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="indigo"
        ).set(body_text_color_subdued="*neutral_500"),  # the theme's own is too faint to read on white
        css_paths=[UI / "style.css", WEB / "panels.css"],
        app_kwargs={"routes": media_routes(sources.served)},
        max_file_size=limits.megabytes * 1_000_000 if limits else None,
        ssr_mode=False,
        show_error=True,
        prevent_thread_lock=not wait,
    )
    return app, sources


def _libraries(settings: Settings, loader: EngineLoader) -> tuple[Library | None, Libraries]:
    """The library that stands in the place of a corpus, where an index was named as one; and those of visitors."""
    turn = threading.Lock()
    main = Library(location_of(settings.corpus), loader.engine, turn) if is_index(settings.corpus) else None
    if settings.hosted:
        visitors = VisitorLibraries(loader.engine, Limits())
        os.environ["GRADIO_TEMP_DIR"] = str(visitors.uploads)
        atexit.register(visitors.close)
        return main, visitors
    if main and settings.index is None:
        return main, OwnLibrary(main)
    return main, OwnLibrary(Library(location_of(settings.index or "index"), loader.engine, turn))


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus", default=os.environ.get("DITS_CORPUS", "demo"), help="demo, a corpus folder, or an index of videos"
    )
    parser.add_argument(
        "--encoder",
        default=os.environ.get("DITS_ENCODER", "bundled"),
        help="bundled, an OpenCLIP model such as ViT-B-32/openai, NAME/FILE.safetensors, or local-dir:FOLDER",
    )
    parser.add_argument("--weights", type=Path, help="folder with xpool.safetensors and dits.safetensors")
    parser.add_argument("--index", metavar="DIR", help="where your own videos are indexed (default: your data folder)")
    parser.add_argument(
        "--hosted",
        action=argparse.BooleanOptionalAction,
        default="SPACE_ID" in os.environ,
        help="visitors upload videos, each sees only their own, and nobody names folders (default: on a Space)",
    )
    parser.add_argument(
        "--host",
        help="address to serve on (default: this machine only); whoever reaches it can name folders, unless --hosted",
    )
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--no-warm", dest="warm", action="store_false", help="analyse nothing before somebody opens a tab for it"
    )
    try:
        launch(Settings(**vars(parser.parse_args())))
    except (DitsError, OSError, OverflowError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

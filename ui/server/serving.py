"""Serves the page: where, and what it may give away."""

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from analysis.web import WEB as PANELS_WEB
from dits.corpora.index_location import is_index, location_of
from ui.components.panels import PLOTLY
from ui.components.theme import THEME
from ui.page import build_app
from ui.runtime.process_folder import ProcessFolder
from ui.runtime.queue import SESSIONS, SWITCH, THREADS, tune, without_statistics
from ui.runtime.shutdown import RequestsInFlight, ShutdownMiddleware, serve_until_shutdown
from ui.server.mcp import has_tools, restricted_tools
from ui.server.middleware import PLAINLY, Guard, names_of
from ui.server.ports import free_port, start_errors
from ui.server.uploads import Uploads
from ui.services.engine_loading import EngineLoader
from ui.services.library import Library
from ui.services.media import media_routes
from ui.services.sources import Sources
from ui.services.visitors import Libraries, Limits, OwnLibrary, VisitorLibraries
from ui.web import WEB


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
    names: Sequence[str] = ()


def launch(settings: Settings, wait: bool = True) -> tuple[gr.Blocks, Sources]:
    """Starts loading, then serves the page, which shows the progress.

    Args:
        wait: serve until a signal ends that, see `ui.runtime.shutdown`.

    Raises:
        DitsError: there is no such corpus, or the page cannot be served there.
    """
    port = free_port(settings.host, settings.port)
    loader = EngineLoader(settings.corpus, settings.encoder, settings.weights)
    loader.start()
    main, libraries, scratch = _libraries(settings, loader)
    os.environ["GRADIO_TEMP_DIR"] = str(scratch.uploads)
    sources = Sources(loader, libraries, main)
    without_statistics()
    sys.setswitchinterval(SWITCH)
    app = build_app(loader, sources, settings.warm)
    tune(app)
    limits = libraries.limits
    names = None if settings.hosted else names_of(settings.host, settings.names)
    guard = Middleware(Guard, uploads=Uploads(limits, lambda: scratch.uploads), names=names)
    traffic = RequestsInFlight()
    with start_errors(port):
        app.launch(
            server_name=settings.host,
            server_port=port,
            theme=THEME,
            css_paths=[WEB / "style.css", PANELS_WEB / "panels.css"],
            app_kwargs={
                "routes": media_routes(sources.served, PLOTLY),
                "middleware": [Middleware(ShutdownMiddleware, traffic=traffic), guard],
                "exception_handlers": PLAINLY,
                "lifespan": restricted_tools,
            },
            enable_monitoring=False,
            run_history=False,
            max_file_size=limits.megabytes * 1_000_000 if limits else None,
            ssr_mode=False,
            show_error=True,
            mcp_server=has_tools(),
            max_threads=THREADS,
            state_session_capacity=SESSIONS,
            prevent_thread_lock=True,
            _frontend=False,  # or it gives up where its own page takes seconds to answer, as while the engine is loaded
        )
    if wait:
        serve_until_shutdown(
            app, traffic, lambda: _stop(loader, libraries), lambda: loader.running or libraries.running
        )
    return app, sources


def _stop(loader: EngineLoader, libraries: Libraries) -> None:
    loader.stop()
    libraries.stop()


def _libraries(settings: Settings, loader: EngineLoader) -> tuple[Library | None, Libraries, ProcessFolder]:
    """The library that stands in the place of a corpus, where an index was named as one; those of visitors; and where
    uploads wait.
    """
    turn = threading.Lock()
    main = Library(location_of(settings.corpus), loader.engine, turn) if is_index(settings.corpus) else None
    if settings.hosted:
        visitors = VisitorLibraries(loader.engine, Limits())
        atexit.register(visitors.close)
        return main, visitors, visitors.scratch
    scratch = ProcessFolder()
    atexit.register(scratch.close)
    if main and settings.index is None:
        return main, OwnLibrary(main), scratch
    return main, OwnLibrary(Library(location_of(settings.index or "index"), loader.engine, turn)), scratch

"""Launches the server of the page."""

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
from ui.runtime.queue import MAX_SESSIONS, MAX_THREADS, SWITCH_INTERVAL, disable_analytics, tune
from ui.runtime.shutdown import RequestsInFlight, ShutdownMiddleware, serve_until_shutdown
from ui.server.mcp import has_tools, restricted_tools
from ui.server.middleware import ERROR_HANDLERS, Guard, host_names
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
    """Settings of the app; see `ui.command` for their meaning."""

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
    """Start loading the engine and serve the page, which shows the progress.

    Args:
        wait: serve until a shutdown signal, see `ui.runtime.shutdown`; else return after the start.

    Raises:
        DitsError: there is no such corpus, or the page cannot be served at this address.
    """
    port = free_port(settings.host, settings.port)
    loader = EngineLoader(settings.corpus, settings.encoder, settings.weights)
    loader.start()
    main, libraries, folder = _libraries(settings, loader)
    os.environ["GRADIO_TEMP_DIR"] = str(folder.uploads)
    sources = Sources(loader, libraries, main)
    disable_analytics()
    sys.setswitchinterval(SWITCH_INTERVAL)
    app = build_app(loader, sources, settings.warm)
    tune(app)
    limits = libraries.limits
    names = None if settings.hosted else host_names(settings.host, settings.names)
    guard = Middleware(Guard, uploads=Uploads(limits, lambda: folder.uploads), names=names)
    requests = RequestsInFlight()
    with start_errors(port):
        app.launch(
            server_name=settings.host,
            server_port=port,
            theme=THEME,
            css_paths=[WEB / "style.css", PANELS_WEB / "panels.css"],
            app_kwargs={
                "routes": media_routes(sources.segments, PLOTLY),
                "middleware": [Middleware(ShutdownMiddleware, requests=requests), guard],
                "exception_handlers": ERROR_HANDLERS,
                "lifespan": restricted_tools,
            },
            enable_monitoring=False,
            run_history=False,
            max_file_size=limits.megabytes * 1_000_000 if limits else None,
            ssr_mode=False,
            show_error=True,
            mcp_server=has_tools(),
            max_threads=MAX_THREADS,
            state_session_capacity=MAX_SESSIONS,
            prevent_thread_lock=True,
            _frontend=False,  # its start check fails if the page takes seconds to answer, as during loading
        )
    if wait:
        serve_until_shutdown(app, requests, (loader, libraries))
    return app, sources


def _libraries(settings: Settings, loader: EngineLoader) -> tuple[Library | None, Libraries, ProcessFolder]:
    """Return the library of `--corpus`, if it is an index; the visitors' libraries; and the folder of uploads."""
    app_lock = threading.Lock()
    main = Library(location_of(settings.corpus), loader.engine, app_lock) if is_index(settings.corpus) else None
    if settings.hosted:
        visitors = VisitorLibraries(loader.engine, Limits())
        atexit.register(visitors.close)
        return main, visitors, visitors.process_folder
    folder = ProcessFolder()
    atexit.register(folder.close)
    if main and settings.index is None:
        return main, OwnLibrary(main), folder
    return main, OwnLibrary(Library(location_of(settings.index or "index"), loader.engine, app_lock)), folder

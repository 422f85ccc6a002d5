"""The tab "Your videos": adds videos to an index that the other tabs search and analyse."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from dits.common.errors import DitsError, InputError, require
from dits.index.scan import SUFFIXES
from dits.video.segments import Segmenting
from ui.components.results import error_html
from ui.components.videos_html import index_html, run_html
from ui.runtime.error_messages import show_errors
from ui.services.library import NO_VIDEOS, Library
from ui.services.visitors import Libraries, Limits

CUTS = {"every 10 seconds": "10s", "where scenes change": "scenes", "not at all": "whole", "another length": "length"}

_LONGEST_CUT = 86_400.0
_MAX_TEXT = 100_000
_POLL = 0.3  # seconds


class VideosHandlers:
    """The event handlers of the tab, for the library of the visitor's session."""

    def __init__(self, libraries: Libraries, has_corpus: bool = True) -> None:
        """`has_corpus`: the app has a corpus besides the visitor's own videos."""
        self._libraries, self._has_corpus = libraries, has_corpus

    def add(
        self, paths: str, uploads: list[str] | None, cut: str, seconds: float, request: gr.Request
    ) -> tuple[Any, Any]:
        """Start to add the typed paths, one per line, and the uploads; return empty values for both boxes."""
        typed, segment = _paths(paths), _segment(cut, seconds)
        require(self._libraries.limits is None or not typed, "Folders cannot be named here: upload files.")
        require(bool(typed or uploads), "Nothing to add: give the path of a folder or of a file, or drop files.")
        library = self._libraries.of(request.session_hash)
        library.check(typed)
        dropped = self._libraries.keep_uploads(library, uploads or [])
        library.add([*typed, *dropped], segment)
        return "", None

    def update(self, request: gr.Request) -> None:
        """Start to update the index from everything that was added."""
        self._own(request).update()

    def stop(self, request: gr.Request) -> None:
        """Stop the current run."""
        self._own(request).runs.stop()

    def remove(self, path: str | None, request: gr.Request) -> None:
        """Remove a file, or everything below a folder, from the index."""
        require(self._libraries.limits is None, "Folders cannot be named here.")
        require(isinstance(path, str) and bool(path.strip()), "Choose what to remove, or give its path.")
        library, name = self._own(request), str(path).strip()
        chosen = library.sources().get(name) or library.path(name)
        library.remove([chosen])
        self._libraries.discard(chosen)

    def leave(self, request: gr.Request) -> None:
        """Delete a visitor's videos on a hosted app; otherwise keep them."""
        self._libraries.leave(request.session_hash)

    def follow(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Yield progress while videos are added, then the outcome: see `_outcome`."""
        library = self._libraries.find(request.session_hash)
        if library is None:
            closed = gr.Button(visible=False)
            yield "", closed, index_html(None), gr.skip(), gr.Column(visible=False), _where(False, False), closed
            return
        shown, changed = None, library.runs.running
        while library.runs.running:
            html = run_html(library.runs)
            if html != shown:
                shown = html
                yield html, gr.Button(visible=True), *[gr.skip()] * 5
            time.sleep(_POLL)
        yield self._outcome(library, changed)

    def _outcome(self, library: Library, changed: bool) -> tuple[Any, ...]:
        """The result of the last run and the contents of the index; after a change, the index becomes the source."""
        try:
            status, sources = library.status(), library.sources()
        except DitsError as error:
            return error_html(str(error)), gr.Button(visible=False), *[gr.skip()] * 5
        searchable = status is not None and status.videos > 0
        hidden = "" if self._libraries.limits is None else str(Path(library.location).parent / "videos") + "/"
        return (
            run_html(library.runs),
            gr.Button(visible=False),
            index_html(status, hidden),
            gr.Dropdown(choices=[] if hidden else list(sources), value=None),  # it shows full paths
            gr.Column(visible=status is not None),
            _where(searchable and self._has_corpus, changed),
            gr.Button(visible=searchable),
        )

    def _own(self, request: gr.Request) -> Library:
        library = self._libraries.find(request.session_hash)
        if library is None:
            raise InputError(NO_VIDEOS)
        return library


def _where(choosable: bool, changed: bool) -> gr.Radio:
    """The choice of the source: hidden if there is only one; own videos are selected after a change."""
    if not choosable:
        return gr.Radio(value="corpus", visible=False)
    return gr.Radio(value="own", visible=True) if changed else gr.Radio(visible=True)


def build_videos_tab(
    tabs: gr.Tabs, where: gr.Radio, libraries: Libraries, loaded: Any, has_corpus: bool
) -> tuple[VideosHandlers, Any]:
    """Build the tab; return its handlers, and the event after which the search tab is open.

    Args:
        tabs: the tabs of the page; the search tab has the id "search".
        where: the choice of the source, "corpus" or "own".
        loaded: the event after which the engine is loaded.
        has_corpus: whether the app has a corpus besides the visitor's own videos.
    """
    handle, limits = VideosHandlers(libraries, has_corpus), libraries.limits
    gr.Markdown(_introduction(limits))
    with gr.Row(equal_height=True):
        paths = gr.Textbox(
            "",
            label="Folders or files, one path per line",
            placeholder="/home/me/videos",
            lines=4,
            max_lines=8,
            visible=limits is None,
            elem_id="own-paths",
            min_width=280,
        )
        uploads = gr.File(
            label="Files to upload" if limits else "Or drop files here",
            file_count="multiple",
            file_types=sorted(SUFFIXES),
            height=170,
            elem_id="own-files",
            min_width=280,
        )
    with gr.Row(equal_height=True):
        cut = gr.Radio(list(CUTS), value=next(iter(CUTS)), label="Cut the videos", elem_id="own-cut", scale=4)
        seconds = gr.Number(
            10, label="Seconds", minimum=0.1, visible=False, elem_id="own-seconds", min_width=110, scale=1
        )
    with gr.Row(elem_classes="actions"):
        add = gr.Button("Add", variant="primary", min_width=110, elem_id="own-add")
        stop = gr.Button("Stop", visible=False, min_width=110, elem_id="own-stop")
        search = gr.Button("Search them", visible=False, min_width=110, elem_id="own-search")
    running = gr.HTML("", js_on_load=None, elem_id="own-running")
    contents = gr.HTML("", js_on_load=None, elem_id="own-held")
    with gr.Column(visible=False, elem_id="own-manage") as manage:
        with gr.Row(equal_height=True, visible=limits is None):
            chosen = gr.Dropdown(
                [], label="Files and folders", allow_custom_value=True, elem_id="own-sources", scale=4, min_width=240
            )
            remove = gr.Button("Remove", min_width=110, elem_id="own-remove")
            update = gr.Button("Update", min_width=110, elem_id="own-update")
        delete = gr.Button("Delete my videos", visible=limits is not None, elem_id="own-delete")

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    outcome = [running, stop, contents, chosen, manage, where, search]
    cut.input(lambda cut: gr.Number(visible=CUTS.get(cut) == "length"), cut, seconds, **quiet)
    started = add.click(show_errors(handle.add), [paths, uploads, cut, seconds], [paths, uploads], **quiet)
    events = [
        started,
        update.click(show_errors(handle.update), None, None, **quiet),
        remove.click(show_errors(handle.remove), chosen, None, **quiet),
        loaded,
    ]
    for event in events:
        event.success(handle.follow, None, outcome, **quiet)
    stop.click(show_errors(handle.stop), None, None, **quiet)
    searched = search.click(lambda: (gr.Tabs(selected="search"), "own"), None, [tabs, where], **quiet)
    if limits:
        delete.click(handle.leave, None, None, **quiet).success(handle.follow, None, outcome, **quiet)
    return handle, searched


def _introduction(limits: Limits | None) -> str:
    if limits is None:
        return (
            "Search your own videos. Each video is cut into segments, and twelve frames of every segment are embedded "
            "on this machine. Unchanged files are not read again."
        )
    return (
        f"Search your own videos: up to {limits.files} files of at most {limits.megabytes} MB and "
        f"{limits.seconds // 60} minutes each. Only you see them. They are deleted when you close or reload this page, "
        f"or after {limits.idle // 60} minutes without use."
    )


def _segment(cut: Any, seconds: Any) -> str:
    """The segmentation as a text that `dits.video.segments.Segmenting` parses."""
    require(isinstance(cut, str) and cut in CUTS, f"Videos cannot be cut '{str(cut)[:40]}': choose one of the options.")
    if CUTS[cut] != "length":
        return CUTS[cut]
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    require(number and 0 < seconds <= _LONGEST_CUT, f"A segment lasts from 0 to {_LONGEST_CUT:.0f} seconds.")
    return str(Segmenting("length", float(seconds)))


def _paths(text: Any) -> list[str]:
    """The typed paths, one per line, with or without quotes."""
    require(isinstance(text, str), "The paths must be a text.")
    require(len(text) <= _MAX_TEXT, "The list of paths is too long: give the folder of the files.")
    lines = (line.strip() for line in text.split("\n"))
    return [line[1:-1] if line[:1] == line[-1:] and line[:1] in "'\"" else line for line in lines if line]

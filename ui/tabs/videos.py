"""The tab "Your videos": adds one's own videos to an index that the other tabs search and analyse."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from dits.common.errors import DitsError, InputError, require
from dits.index.scan import SUFFIXES
from dits.video.segments import Segmenting
from ui.components.results import error_html
from ui.components.videos_html import held_html, run_html
from ui.runtime.error_messages import shown_errors
from ui.services.library import NO_VIDEOS, Library
from ui.services.visitors import Libraries, Limits

CUTS = {"every 10 seconds": "10s", "where scenes change": "scenes", "not at all": "whole", "another length": "length"}

_LONGEST_CUT = 86_400.0
_MAX_TEXT = 100_000
_POLL = 0.3  # seconds


class VideosTab:
    """What the tab does, for the library of the visitor's session."""

    def __init__(self, libraries: Libraries, choosable: bool = True) -> None:
        """`choosable`: there is a corpus to search beside one's own videos."""
        self._libraries, self._choosable = libraries, choosable

    def add(
        self, paths: str, uploads: list[str] | None, cut: str, seconds: float, request: gr.Request
    ) -> tuple[Any, Any]:
        """Starts adding what was typed, a path on every line, and what was dropped; both boxes are empty then."""
        named, segment = _paths(paths), _segment(cut, seconds)
        require(self._libraries.limits is None or not named, "Folders cannot be named here: upload files.")
        require(bool(named or uploads), "Nothing to add: give the path of a folder or of a file, or drop files.")
        library = self._libraries.of(request.session_hash)
        library.check(named)
        dropped = self._libraries.kept(library, uploads or [])
        library.add([*named, *dropped], segment)
        return "", None

    def update(self, request: gr.Request) -> None:
        """Starts looking again at everything that was added."""
        self._own(request).update()

    def stop(self, request: gr.Request) -> None:
        """Stops what is under way."""
        self._own(request).runs.stop()

    def remove(self, path: str | None, request: gr.Request) -> None:
        """Forgets a file, or everything below a folder."""
        require(self._libraries.limits is None, "Folders cannot be named here.")
        require(isinstance(path, str) and bool(path.strip()), "Choose what to remove, or give its path.")
        library, name = self._own(request), str(path).strip()
        chosen = library.sources().get(name) or library.path(name)
        library.remove([chosen])
        self._libraries.discard(chosen)

    def leave(self, request: gr.Request) -> None:
        """Deletes a visitor's videos; those of a run of one's own stay."""
        self._libraries.leave(request.session_hash)

    def follow(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Progress while videos are added; then what came of it: see `_outcome`."""
        library = self._libraries.find(request.session_hash)
        if library is None:
            yield _nothing()
            return
        shown, followed = None, library.runs.running
        while library.runs.running:
            html = run_html(library.runs)
            if html != shown:
                shown = html
                yield html, gr.Button(visible=True), *[gr.skip()] * 5
            time.sleep(_POLL)
        yield self._outcome(library, followed)

    def _outcome(self, library: Library, changed: bool) -> tuple[Any, ...]:
        """What came of the last run, and the index as it is; after a change it is what is searched."""
        try:
            status, sources = library.status(), library.sources()
        except DitsError as error:
            return error_html(str(error)), gr.Button(visible=False), *[gr.skip()] * 5
        some = status is not None and status.videos > 0
        hidden = "" if self._libraries.limits is None else str(Path(library.location).parent / "videos") + "/"
        return (
            run_html(library.runs),
            gr.Button(visible=False),
            held_html(status, hidden),
            gr.Dropdown(choices=[] if hidden else list(sources), value=None),  # which shows whole paths
            gr.Column(visible=status is not None),
            _where(some and self._choosable, changed),
            gr.Button(visible=some),
        )

    def _own(self, request: gr.Request) -> Library:
        """The visitor's library, where there is one."""
        library = self._libraries.find(request.session_hash)
        if library is None:
            raise InputError(NO_VIDEOS)
        return library


def _nothing() -> tuple[Any, ...]:
    """As `VideosTab.follow` has it where a visitor has no videos."""
    closed = gr.Button(visible=False)
    return "", closed, held_html(None), gr.skip(), gr.Column(visible=False), _where(False, False), closed


def _where(some: bool, changed: bool) -> gr.Radio:
    """The choice of what is searched: closed where there is one thing alone; one's own videos once they are added."""
    if not some:
        return gr.Radio(value="corpus", visible=False)
    return gr.Radio(value="own", visible=True) if changed else gr.Radio(visible=True)


def build_videos_tab(
    tabs: gr.Tabs, where: gr.Radio, libraries: Libraries, loaded: Any, choosable: bool
) -> tuple[VideosTab, Any]:
    """Lays the tab out; what it calls, and the event after which somebody looks at the search tab.

    Args:
        tabs: the tabs that it is one of, the one of the search called "search".
        where: chooses what is searched, "corpus" or "own".
        loaded: the event after which the page's engine is there.
        choosable: whether there is a corpus to search beside one's own videos.
    """
    handle, limits = VideosTab(libraries, choosable), libraries.limits
    gr.Markdown(_introduction(limits))
    with gr.Row(equal_height=True):
        paths = gr.Textbox(
            "",
            label="A folder, or files, one on a line",
            placeholder="/home/me/videos",
            lines=4,
            max_lines=8,
            visible=limits is None,
            elem_id="own-paths",
            min_width=280,
        )
        uploads = gr.File(
            label="Files to upload" if limits else "Or files, dropped here",
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
    held = gr.HTML("", js_on_load=None, elem_id="own-held")
    with gr.Column(visible=False, elem_id="own-manage") as manage:
        with gr.Row(equal_height=True, visible=limits is None):
            chosen = gr.Dropdown(
                [], label="What was added", allow_custom_value=True, elem_id="own-sources", scale=4, min_width=240
            )
            remove = gr.Button("Remove it", min_width=110, elem_id="own-remove")
            update = gr.Button("Look again", min_width=110, elem_id="own-update")
        delete = gr.Button("Delete my videos", visible=limits is not None, elem_id="own-delete")

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    outcome = [running, stop, held, chosen, manage, where, search]
    cut.input(lambda cut: gr.Number(visible=CUTS.get(cut) == "length"), cut, seconds, **quiet)
    started = add.click(shown_errors(handle.add), [paths, uploads, cut, seconds], [paths, uploads], **quiet)
    events = [
        started,
        update.click(shown_errors(handle.update), None, None, **quiet),
        remove.click(shown_errors(handle.remove), chosen, None, **quiet),
        loaded,
    ]
    for event in events:
        event.success(handle.follow, None, outcome, **quiet)
    stop.click(shown_errors(handle.stop), None, None, **quiet)
    searched = search.click(lambda: (gr.Tabs(selected="search"), "own"), None, [tabs, where], **quiet)
    if limits:
        delete.click(handle.leave, None, None, **quiet).success(handle.follow, None, outcome, **quiet)
    return handle, searched


def _introduction(limits: Limits | None) -> str:
    if limits is None:
        return (
            "Search your own videos: each is cut into parts, and twelve frames of every part are embedded, on this "
            "machine alone. What is unchanged is not read twice."
        )
    return (
        f"Search your own videos: up to {limits.files} files of at most {limits.megabytes} MB and "
        f"{limits.seconds // 60} minutes each. Nobody else sees them, and they are deleted when you close or reload "
        f"this page, or after {limits.idle // 60} minutes without use."
    )


def _segment(cut: Any, seconds: Any) -> str:
    """How videos are cut, as `dits.video.segments.Segmenting` reads it."""
    require(isinstance(cut, str) and cut in CUTS, f"Videos cannot be cut '{str(cut)[:40]}': choose how.")
    if CUTS[cut] != "length":
        return CUTS[cut]
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    require(number and 0 < seconds <= _LONGEST_CUT, f"A part lasts from 0 to {_LONGEST_CUT:.0f} seconds.")
    return str(Segmenting("length", float(seconds)))


def _paths(text: Any) -> list[str]:
    """The paths that were typed, one on a line, in quotes or not."""
    require(isinstance(text, str), "The paths must be a text.")
    require(len(text) <= _MAX_TEXT, "That is too long for paths: name the folder that the files are in.")
    lines = (line.strip() for line in text.split("\n"))
    return [line[1:-1] if line[:1] == line[-1:] and line[:1] in "'\"" else line for line in lines if line]

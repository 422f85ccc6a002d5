"""An index of somebody's own videos as the page has it: what changes it, the engine over it, what is served of it."""

import os
import secrets
import stat
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dits.common.errors import DitsError, InputError, require
from dits.common.threads import CORES, compute_on
from dits.corpora.index_location import is_index
from dits.index.adding.config import AddConfig
from dits.index.adding.run import add_videos, remove_videos, update_index
from dits.index.scan import absolute, below, check_paths, shown
from dits.index.status import IndexStatus, status_of
from dits.index.store import VideoIndex
from dits.search.engine import SearchEngine
from dits.search.indexed import search_index
from ui.services.analyses import Analyst
from ui.services.index_runs import IndexRuns
from ui.services.media import IndexMedia

NO_VIDEOS = "There are no videos of yours yet: add some in the tab Your videos."

_PATIENCE = 20.0  # seconds that a search waits for the engine, where others only wait for each other


@dataclass(frozen=True)
class _Loaded:
    """The engine over one version of the index, and below which paths lies what was indexed."""

    version: int
    engine: SearchEngine
    analyst: Analyst
    sources: tuple[bytes, ...]


class Library:
    """An index of one's own videos. Safe to use from several threads.

    Args:
        location: of the index, which need not be there yet.
        base: gives the engine whose encoder and methods are used.
        turn: see `IndexRuns`.
        config: how videos are added, but for how they are cut.
        folder: where everything that is derived of the videos is kept; by default in the cache.

    Attributes:
        token: stands for this library in addresses; nobody can guess it.
        media: the addresses.
        runs: what changes the index.
    """

    def __init__(
        self,
        location: str,
        base: Callable[[], SearchEngine],
        turn: threading.Lock,
        config: AddConfig | None = None,
        folder: Path | None = None,
    ) -> None:
        self.location = location
        self.token = secrets.token_urlsafe(16)
        self.media = IndexMedia(self.token)
        self.runs = IndexRuns(turn, self.refresh)
        self._base, self._config, self._folder = base, config or AddConfig(), folder
        self._loading = threading.Lock()
        self._opened: VideoIndex | None = None
        self._loaded: _Loaded | None = None
        self._error: DitsError | None = None

    def add(self, paths: Sequence[str], segment: str) -> None:
        """Starts adding files and folders, cut in a way; what could not be read before is tried again.

        Raises:
            InputError: a path does not exist, there is no such way of cutting, or another run is under way.
            DitsError: the page's own engine is not loaded.
        """
        config, encoder = replace(self._config, segment=segment, retry=True), self._base().encoder
        require(len(paths) > 0, "Nothing to add: give the path of a folder or of a file, or drop files.")
        self.check(paths)
        self.runs.start(
            lambda progress: add_videos(VideoIndex.create(self.location, encoder), encoder, paths, config, progress)
        )

    def check(self, paths: Sequence[str]) -> None:
        """Nothing, where paths can be added; raises InputError where one does not exist, or a run is under way."""
        require(not self.runs.running, "Videos are being added already: wait until that is done, or stop it.")
        check_paths(_real(paths))

    def path(self, text: str) -> bytes:
        """A path that somebody typed, as the index names it; raises InputError where it is none."""
        return absolute(_real([text])[0])

    def update(self) -> None:
        """Starts looking again at everything that was added; raises as `add` does."""
        index, config = self._required(), self._config
        self.runs.start(lambda progress: update_index(index, self._base().encoder, config, progress))

    def remove(self, paths: Sequence[str | bytes]) -> int:
        """Forgets files, and everything below folders; how many files.

        Raises:
            InputError: the index knows none of them, a path is none, or a run is under way.
            IndexStoreError: the index cannot be written.
        """
        require(not self.runs.running, "Videos are being added: wait until that is done, or stop it.")
        removed = remove_videos(self._required(), _real(paths))
        self.refresh()
        require(removed > 0, f"Nothing was added from {shown(os.fsencode(paths[0]))[:200]}.")
        return removed

    def status(self) -> IndexStatus | None:
        """What the index holds; None where there is none.

        Raises:
            IndexStoreError: it cannot be read.
        """
        index = self._index()
        return status_of(index) if index else None

    def sources(self) -> dict[str, bytes]:
        """The files and folders that were added, by how they are shown; raises as `status` does."""
        index = self._index()
        return {shown(path): path for path, _ in index.sources()} if index else {}

    def engine(self) -> SearchEngine:
        """The engine over the index as it was when it was last loaded; loaded now where it was not.

        Raises:
            InputError: the index holds no videos.
            DitsError: loading failed, or takes a while.
        """
        return self._ready().engine

    def analyst(self) -> Analyst:
        """The analyst of `engine`; raises as it does."""
        return self._ready().analyst

    def refresh(self) -> None:
        """Loads the engine, where the index, or the page's own engine, is another than it was."""
        with self._loading:
            compute_on(CORES)
            try:
                self._loaded, self._error = self._load(), None
            except DitsError as error:
                self._loaded, self._error = None, error
            except Exception as error:
                self._error = DitsError(f"Your videos could not be loaded ({type(error).__name__}: {error}).")
                raise

    def file(self, segment: str) -> Path | None:
        """The file of a segment that can be searched now, if it is a regular one below what was added."""
        loaded = self._loaded
        row = _row(loaded.engine, segment) if loaded else None
        if loaded is None or row is None:
            return None
        path = loaded.engine.corpus.clips[row].path
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except (OSError, ValueError):
            return None
        return path if regular and below(os.fsencode(path), loaded.sources) else None

    def thumbnail(self, segment: str) -> bytes | None:
        """A JPEG of a segment that can be searched now."""
        loaded, index = self._loaded, self._index()
        if loaded is None or index is None or _row(loaded.engine, segment) is None:
            return None
        return index.thumbnails([segment]).get(segment)

    def close(self) -> None:
        """Ends what is under way, and waits for that."""
        self.runs.close()
        with self._loading:
            self._loaded = self._opened = None

    def _ready(self) -> _Loaded:
        loaded = self._loaded
        if loaded is None or _models(loaded.engine) != _models(self._base()):
            thread = threading.Thread(target=self.refresh, name="library-loader", daemon=True)
            thread.start()
            thread.join(_PATIENCE)
            if thread.is_alive():
                raise DitsError("Your videos are being read: try again in a moment.")
            loaded = self._loaded
        if loaded is None:
            raise self._error or InputError(NO_VIDEOS)
        return loaded

    def _load(self) -> _Loaded | None:
        base, index, loaded = self._base(), self._index(), self._loaded
        if index is None or not index.counts()["segments"]:
            return None
        version = index.version
        if loaded and loaded.version == version and _models(loaded.engine) == _models(base):
            return loaded
        engine = search_index(base, self.location, folder=self._folder and self._folder / "snapshots")
        analyst = Analyst(engine, self.media, self._folder and self._folder / "maps")
        return _Loaded(version, engine, analyst, tuple(path for path, _ in index.sources()))

    def _index(self) -> VideoIndex | None:
        """The index, if it is there; looking makes none."""
        if self._opened is None and is_index(self.location):
            self._opened = VideoIndex.create(self.location, self._base().encoder)
        return self._opened

    def _required(self) -> VideoIndex:
        index = self._index()
        if index is None:
            raise InputError(NO_VIDEOS)
        return index


def _real(paths: Sequence[str | bytes]) -> list[bytes]:
    """Paths as the system has them, of whatever somebody typed."""
    try:
        names = [os.fsencode(path) for path in paths]
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise InputError("What was typed is no path: it holds half a character.") from error
    require(not any(b"\0" in name for name in names), "A path holds no NUL character: check what was typed.")
    return names


def _row(engine: SearchEngine, segment: str) -> int | None:
    """The place of a segment by its id; ids are in order."""
    ids = engine.embeddings.ids
    row = bisect_left(ids, segment)
    return row if row < len(ids) and ids[row] == segment else None


def _models(engine: SearchEngine) -> list[object]:
    return [method.model for method in engine.methods.values()]

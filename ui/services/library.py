"""An index of a user's own videos: its changes, its search engine, and the files that are served."""

import os
import secrets
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
from dits.index.scan import absolute, below, check_paths, path_text
from dits.index.status import IndexStatus, status_of
from dits.index.store import VideoIndex
from dits.search.engine import SearchEngine
from dits.search.indexed import search_index
from ui.services.analyses import Analyst
from ui.services.index_runs import IndexRuns
from ui.services.media import IndexMedia

NO_VIDEOS = "There are no videos of yours yet: add some in the tab Your videos."

_LOAD_TIMEOUT = 20.0  # seconds that a search waits for the engine of the index


@dataclass(frozen=True)
class _Loaded:
    """The engine of one version of the index, and the files and folders that were added to it."""

    version: int
    engine: SearchEngine
    analyst: Analyst
    sources: tuple[bytes, ...]


class Library:
    """An index of a user's own videos. Thread-safe.

    Args:
        location: of the index; it may not exist yet.
        base: returns the engine whose encoder and methods are used.
        app_lock: see `IndexRuns`.
        config: settings for adding videos, except the segmentation.
        folder: for all files derived from the videos; by default in the cache.

    Attributes:
        token: secret name of this library in addresses.
        media: the addresses of its segments.
        runs: the runs that change the index.
    """

    def __init__(
        self,
        location: str,
        base: Callable[[], SearchEngine],
        app_lock: threading.Lock,
        config: AddConfig | None = None,
        folder: Path | None = None,
    ) -> None:
        self.location = location
        self.token = secrets.token_urlsafe(16)
        self.media = IndexMedia(self.token)
        self.runs = IndexRuns(app_lock, self.refresh)
        self._base, self._config, self._folder = base, config or AddConfig(), folder
        self._loading = threading.Lock()
        self._opened: VideoIndex | None = None
        self._loaded: _Loaded | None = None
        self._error: DitsError | None = None

    def add(self, paths: Sequence[str], segment: str) -> None:
        """Start a run that adds files and folders with a segmentation, and retries files that failed before.

        Raises:
            InputError: a path does not exist, the segmentation is unknown, or another run is in progress.
            DitsError: the page's own engine is not loaded.
        """
        config, encoder = replace(self._config, segment=segment, retry=True), self._base().encoder
        require(len(paths) > 0, "Nothing to add: give the path of a folder or of a file, or drop files.")
        self.check(paths)
        self.runs.start(
            lambda progress: add_videos(VideoIndex.create(self.location, encoder), encoder, paths, config, progress)
        )

    def check(self, paths: Sequence[str]) -> None:
        """Raise InputError if a path does not exist, or a run is in progress."""
        require(not self.runs.running, "Videos are being added already: wait until that is done, or stop it.")
        check_paths(_encoded(paths))

    def path(self, text: str) -> bytes:
        """Return a path that the user typed, as stored in the index; raises InputError if it is not a valid path."""
        return absolute(_encoded([text])[0])

    def update(self) -> None:
        """Start a run that updates everything that was added; raises as `add` does."""
        index, config = self._required(), self._config
        self.runs.start(lambda progress: update_index(index, self._base().encoder, config, progress))

    def remove(self, paths: Sequence[str | bytes]) -> int:
        """Remove files, and all files below folders, from the index; return the number of files.

        Raises:
            InputError: the index contains none of them, a path is invalid, or a run is in progress.
            IndexStoreError: the index cannot be written.
        """
        require(not self.runs.running, "Videos are being added: wait until that is done, or stop it.")
        removed = remove_videos(self._required(), _encoded(paths))
        self.refresh()
        require(removed > 0, f"Nothing was added from {path_text(os.fsencode(paths[0]))[:200]}.")
        return removed

    def status(self) -> IndexStatus | None:
        """Return the contents of the index; None if there is no index.

        Raises:
            IndexStoreError: the index cannot be read.
        """
        index = self._index()
        return status_of(index) if index else None

    def sources(self) -> dict[str, bytes]:
        """Return the files and folders that were added, by their displayed text; raises as `status` does."""
        index = self._index()
        return {path_text(path): path for path, _ in index.sources()} if index else {}

    def engine(self) -> SearchEngine:
        """Return the engine of the last loaded version of the index; load it if necessary.

        Raises:
            InputError: the index contains no videos.
            DitsError: loading failed, or is not finished yet.
        """
        return self._ready().engine

    def analyst(self) -> Analyst:
        """Return the analyst of `engine`; raises as `engine` does."""
        return self._ready().analyst

    def refresh(self) -> None:
        """Load the engine again if the index, or the page's own engine, has changed."""
        with self._loading:
            compute_on(CORES)
            try:
                self._loaded, self._error = self._load(), None
            except DitsError as error:
                self._loaded, self._error = None, error
            except Exception as error:  # of any type: searches show it until a load succeeds
                problem = f"Your videos could not be loaded ({type(error).__name__}: {error})."
                self._loaded, self._error = None, DitsError(problem)
                raise

    def file(self, segment: str) -> Path | None:
        """Return the file of a searchable segment, if it is a regular file below the added files and folders."""
        loaded = self._loaded
        row = _row(loaded.engine, segment) if loaded else None
        if loaded is None or row is None:
            return None
        path = loaded.engine.corpus.clips[row].path
        return path if os.path.isfile(path) and below(os.fsencode(path), loaded.sources) else None

    def thumbnail(self, segment: str) -> bytes | None:
        """Return a JPEG of a searchable segment."""
        loaded, index = self._loaded, self._index()
        if loaded is None or index is None or _row(loaded.engine, segment) is None:
            return None
        return index.thumbnails([segment]).get(segment)

    def close(self) -> None:
        """Stop the run, if any, and wait for its end."""
        self.runs.close()
        with self._loading:
            self._loaded = self._opened = None

    def _ready(self) -> _Loaded:
        loaded = self._loaded
        if loaded is None or _models(loaded.engine) != _models(self._base()):
            thread = threading.Thread(target=self.refresh, name="library-loader", daemon=True)
            thread.start()
            thread.join(_LOAD_TIMEOUT)
            if thread.is_alive():
                raise DitsError("Your videos are being loaded: try again in a moment.")
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
        """Return the index if it exists; its table for the encoder of the page is created if it is missing."""
        if self._opened is None and is_index(self.location):
            self._opened = VideoIndex.create(self.location, self._base().encoder)
        return self._opened

    def _required(self) -> VideoIndex:
        index = self._index()
        if index is None:
            raise InputError(NO_VIDEOS)
        return index


def _encoded(paths: Sequence[str | bytes]) -> list[bytes]:
    """Typed paths in the encoding of the file system."""
    try:
        names = [os.fsencode(path) for path in paths]
    except UnicodeEncodeError as error:  # a lone surrogate
        raise InputError("This is not a valid path: it contains an invalid Unicode character.") from error
    require(not any(b"\0" in name for name in names), "A path cannot contain a NUL character: correct it.")
    return names


def _row(engine: SearchEngine, segment: str) -> int | None:
    """The row of a segment by its id; ids are sorted."""
    ids = engine.embeddings.ids
    row = bisect_left(ids, segment)
    return row if row < len(ids) and ids[row] == segment else None


def _models(engine: SearchEngine) -> list[object]:
    return [method.model for method in engine.methods.values()]

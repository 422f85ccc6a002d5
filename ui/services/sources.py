"""Sources of a search: the corpus of the page, or a visitor's own videos."""

from dits.common.errors import InputError
from dits.search.engine import SearchEngine
from ui.runtime.cache import Cache
from ui.services.analyses import Analyst
from ui.services.engine_loading import EngineLoader
from ui.services.library import Library
from ui.services.media import CORPUS_MEDIA, CORPUS_TOKEN, CorpusSegments, Media, Segments
from ui.services.visitors import DELETED, Libraries


class Sources:
    """Engines, analysts and addresses by source: a library's token, or None for the page's corpus.

    Args:
        main: the library that the page was started with instead of a corpus, if any.
    """

    def __init__(self, loader: EngineLoader, libraries: Libraries, main: Library | None = None) -> None:
        self.libraries, self.main = libraries, main
        self._loader = loader
        self._analysts, self._segments = Cache(1), Cache(1)  # of the engine of `loader`, which can be replaced

    @property
    def has_corpus(self) -> bool:
        """Whether there is a corpus besides the own videos; False if the page was started with the own index."""
        return self.main is None or self.libraries.find(None) is not self.main

    def engine(self, own: str | None = None) -> SearchEngine:
        """Return the engine; raises DitsError if it is not loaded, or was deleted."""
        library = self._library(own)
        return library.engine() if library else self._loader.engine()

    def analyst(self, own: str | None = None) -> Analyst:
        """Return the analyst; raises as `engine` does."""
        library = self._library(own)
        if library:
            return library.analyst()
        engine = self._loader.engine()
        return self._analysts(engine, lambda: Analyst(engine))

    def media(self, own: str | None = None) -> Media:
        """Return the addresses; raises as `engine` does."""
        library = self._library(own)
        return library.media if library else CORPUS_MEDIA

    def segments(self, token: str) -> Segments | None:
        """Return the segments of a token: of a library, or of the page's corpus once it is loaded."""
        if token == CORPUS_TOKEN:
            if self.main is not None or not self._loader.loaded:
                return None
            engine = self._loader.engine()
            return self._segments(engine, lambda: CorpusSegments(engine.corpus))
        if self.main is not None and token == self.main.token:
            return self.main
        return self.libraries.by_token(token)

    def _library(self, own: str | None) -> Library | None:
        if own is None:
            return self.main
        library = self.libraries.by_token(own)
        if library is None:
            raise InputError(DELETED)
        return library

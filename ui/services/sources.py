"""What the page searches: the corpus that it was started with, or a visitor's own videos."""

from dits.common.errors import InputError
from dits.corpora.corpus import Corpus
from dits.search.engine import SearchEngine
from ui.services.analyses import Analyst, Analysts
from ui.services.engine_loading import EngineLoader
from ui.services.library import Library
from ui.services.media import CORPUS, CORPUS_MEDIA, CorpusSegments, Media, Segments
from ui.services.visitors import GONE, Libraries


class Sources:
    """Engines, analysts and addresses by what is searched: a library's token, or None for the page's corpus.

    Args:
        main: the library that the page was started with in the place of a corpus, if it was.
    """

    def __init__(self, loader: EngineLoader, libraries: Libraries, main: Library | None = None) -> None:
        self.libraries, self.main = libraries, main
        self._loader, self._analysts = loader, Analysts(loader)
        self._served: tuple[Corpus, CorpusSegments] | None = None

    @property
    def choosable(self) -> bool:
        """Whether there is a corpus to search beside one's own videos: not where these are what the page is for."""
        return self.main is None or self.libraries.find(None) is not self.main

    def engine(self, own: str | None = None) -> SearchEngine:
        """The engine; raises DitsError where it is not loaded, or not there any more."""
        library = self._library(own)
        return library.engine() if library else self._loader.engine()

    def analyst(self, own: str | None = None) -> Analyst:
        """The analyst; raises as `engine` does."""
        library = self._library(own)
        return library.analyst() if library else self._analysts()

    def media(self, own: str | None = None) -> Media:
        """The addresses; raises as `engine` does."""
        library = self._library(own)
        return library.media if library else CORPUS_MEDIA

    def served(self, token: str) -> Segments | None:
        """What a token stands for: a library, or the page's corpus, once it is loaded."""
        if token == CORPUS:
            return self._corpus()
        if self.main is not None and token == self.main.token:
            return self.main
        return self.libraries.by_token(token)

    def _corpus(self) -> CorpusSegments | None:
        if self.main is not None or not self._loader.loaded:
            return None
        corpus = self._loader.engine().corpus
        if self._served is None or self._served[0] is not corpus:
            self._served = corpus, CorpusSegments(corpus)
        return self._served[1]

    def _library(self, own: str | None) -> Library | None:
        if own is None:
            return self.main
        library = self.libraries.by_token(own)
        if library is None:
            raise InputError(GONE)
        return library

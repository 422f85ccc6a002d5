"""Loads the search engine beside the page, which shows how far that is."""

import threading
from pathlib import Path

from dits.common.errors import DitsError
from dits.common.threads import CORES, compute_on
from dits.corpora.index_location import is_index
from dits.corpora.names import open_corpus
from dits.search.engine import SearchEngine
from dits.search.loading import load_engine
from ui.runtime.gpu import DEVICE, LENT, LentGpu
from ui.runtime.shutdown import SHUTTING_DOWN


class EngineLoader:
    """One engine for all visitors, loaded once in the background; a failed load is tried again when asked for.

    Attributes:
        corpus: its name, see `dits.search.loading.load_engine`.

    Raises:
        DitsError: there is no such corpus.
    """

    def __init__(self, corpus: str, encoder: str, weights: Path | None) -> None:
        self.corpus = corpus
        if corpus != "demo" and not is_index(corpus):
            open_corpus(corpus)  # a wrong name is told at once
        self.progress: tuple[str, int, int] = ("Starting", 0, 1)
        self._arguments = {"corpus": corpus, "encoder": encoder, "weights": weights, "device": DEVICE}
        self._gpu = LentGpu() if LENT else None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._engine: SearchEngine | None = None
        self._error: DitsError | None = None
        self._stopping = threading.Event()

    @property
    def loaded(self) -> bool:
        """Whether the engine is there."""
        return self._engine is not None

    @property
    def finished(self) -> bool:
        """Whether the engine is loaded, or loading failed."""
        return self._engine is not None or self._error is not None

    def start(self) -> None:
        """Starts loading, unless the engine is loaded or loading already."""
        with self._lock:
            if self._engine is None and not self.running:
                self._error = None
                self._thread = threading.Thread(target=self._load, name="engine-loader", daemon=True)
                self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the engine is being loaded."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Ends loading, and what else calls `go_on`, at its next step: the app is being ended."""
        self._stopping.set()

    def go_on(self) -> None:
        """Nothing, unless the app is being ended.

        Raises:
            DitsError: it is.
        """
        if self._stopping.is_set():
            raise DitsError(SHUTTING_DOWN)

    def engine(self) -> SearchEngine:
        """The engine.

        Raises:
            DitsError: loading failed, or is not done yet.
        """
        if self._error is not None:
            raise self._error
        if self._engine is None:
            what, done, total = self.progress
            count = f", {done} of {total}" if total > 1 else ""
            raise DitsError(f"Not ready yet ({what.lower()}{count}): try again in a moment.")
        return self._engine

    def replace(self, engine: SearchEngine) -> None:
        """From now on this is the engine."""
        self._engine = engine

    def _load(self) -> None:
        compute_on(CORES)
        try:
            engine = load_engine(progress=self._on_progress, allow_missing=True, batch_queries=True, **self._arguments)  # type: ignore[arg-type]
            if self._gpu:
                engine.encoder = self._gpu.serve(engine.encoder)
            engine.search_all("warm up")
            self._engine = engine
        except DitsError as error:
            self._error = error
        except Exception as error:  # whatever it is, the page has to say that loading ended
            self._error = DitsError(f"The search engine could not be loaded ({type(error).__name__}: {error}).")
            raise

    def _on_progress(self, what: str, done: int, total: int) -> None:
        self.progress = (what, done, total)
        self.go_on()

"""Loads the search engine in the background, with progress for the page."""

import threading
from pathlib import Path

from dits.common.errors import DitsError
from dits.corpora.index_location import is_index
from dits.corpora.names import open_corpus
from dits.search.engine import SearchEngine
from dits.search.loading import load_engine
from ui.runtime.background import BackgroundTask
from ui.runtime.gpu import DEVICE, ZERO_GPU, ZeroGpu
from ui.runtime.shutdown import SHUTTING_DOWN


class EngineLoader(BackgroundTask):
    """Loads one engine for all visitors; a failed load can be started again.

    Attributes:
        corpus: its name, see `dits.search.loading.load_engine`.

    Raises:
        DitsError: there is no such corpus.
    """

    def __init__(self, corpus: str, encoder: str, weights: Path | None) -> None:
        super().__init__("engine-loader", "The search engine could not be loaded")
        self.corpus = corpus
        if corpus != "demo" and not is_index(corpus):
            open_corpus(corpus)  # reports a wrong name before the page is served
        self.progress: tuple[str, int, int] = ("Starting", 0, 1)
        self._arguments = {"corpus": corpus, "encoder": encoder, "weights": weights, "device": DEVICE}
        self._gpu = ZeroGpu() if ZERO_GPU else None
        self._engine: SearchEngine | None = None
        self._stopping = threading.Event()

    @property
    def loaded(self) -> bool:
        """Whether the engine is loaded."""
        return self._engine is not None

    @property
    def finished(self) -> bool:
        """Whether the engine is loaded, or loading failed."""
        return self._engine is not None or self.error is not None

    def start(self) -> None:
        """Start loading, unless the engine is loaded or loading."""
        with self._lock:
            if self._engine is None and not self.running:
                self._start(self._load)

    def stop(self) -> None:
        """End loading, and every other task that calls `raise_if_stopping`, at the next step."""
        self._stopping.set()

    def raise_if_stopping(self) -> None:
        """Raise DitsError if the app is shutting down."""
        if self._stopping.is_set():
            raise DitsError(SHUTTING_DOWN)

    def engine(self) -> SearchEngine:
        """Return the engine.

        Raises:
            DitsError: loading failed, or is not finished yet.
        """
        if self.error is not None:
            raise self.error
        if self._engine is None:
            what, done, total = self.progress
            count = f", {done} of {total}" if total > 1 else ""
            raise DitsError(f"Not ready yet ({what.lower()}{count}): try again in a moment.")
        return self._engine

    def replace(self, engine: SearchEngine) -> None:
        """Use another engine from now on."""
        self._engine = engine

    def _load(self) -> None:
        engine = load_engine(progress=self._on_progress, allow_missing=True, batch_queries=True, **self._arguments)  # type: ignore[arg-type]
        if self._gpu:
            engine = engine.with_encoder(self._gpu.serve(engine.encoder))
        engine.search_all("warm up")
        self._engine = engine

    def _on_progress(self, what: str, done: int, total: int) -> None:
        self.progress = (what, done, total)
        self.raise_if_stopping()

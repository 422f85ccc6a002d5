"""Trains missing weights for the page's encoder in the background, with progress for the page."""

from dits.training.prepare import check_trainable, estimated_minutes, prepare_weights
from ui.runtime.background import BackgroundTask
from ui.services.engine_loading import EngineLoader

_START = ("Preparing the weights", 0, 1)


class WeightPreparation(BackgroundTask):
    """Trains the weights that the engine lacks, once for all visitors."""

    def __init__(self, loader: EngineLoader) -> None:
        super().__init__("weights-preparer", "The weights could not be prepared")
        self.progress: tuple[str, int, int] = _START
        self._loader = loader

    def start(self) -> None:
        """Start the preparation, unless it is running or the engine lacks no weights.

        Raises:
            DitsError: the engine is not loaded.
        """
        with self._lock:
            if self._loader.engine().missing and not self.running:
                self.progress = _START
                self._start(self._prepare)

    def minutes(self) -> int:
        """Return the estimated duration in minutes.

        Raises:
            DitsError: the engine is not loaded, or its corpus cannot be trained on; the message says why.
        """
        engine = self._loader.engine()
        check_trainable(engine.corpus)
        return estimated_minutes(engine.corpus, engine.encoder)

    def _prepare(self) -> None:
        engine = self._loader.engine()
        prepare_weights(engine.corpus, engine.encoder, engine.embeddings, progress=self._on_progress)
        self._loader.replace(engine.with_prepared())

    def _on_progress(self, what: str, done: int, total: int) -> None:
        self.progress = (what, done, total)
        self._loader.raise_if_stopping()

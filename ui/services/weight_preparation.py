"""Prepares weights for the page's encoder beside the page, which shows how far that is."""

import threading

from dits.common.errors import DitsError
from dits.common.threads import CORES, compute_on
from dits.training.prepare import check_trainable, estimated_minutes, prepare_weights
from ui.services.engine_loading import EngineLoader

_START = ("Preparing the weights", 0, 1)


class WeightPreparation:
    """Makes the weights that the engine is missing: in the background, once for all visitors."""

    def __init__(self, loader: EngineLoader) -> None:
        self.progress: tuple[str, int, int] = _START
        self.error: DitsError | None = None
        self._loader = loader
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether weights are being prepared."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Starts preparing, unless that is under way or the engine misses nothing.

        Raises:
            DitsError: the engine is not loaded.
        """
        with self._lock:
            if self._loader.engine().missing and not self.running:
                self.progress, self.error = _START, None
                self._thread = threading.Thread(target=self._prepare, name="weights-preparer", daemon=True)
                self._thread.start()

    def minutes(self) -> int:
        """About how long it takes.

        Raises:
            DitsError: the engine is not loaded, or no weights can be trained on its corpus; the message says why.
        """
        engine = self._loader.engine()
        check_trainable(engine.corpus)
        return estimated_minutes(engine.corpus, engine.encoder)

    def _prepare(self) -> None:
        compute_on(CORES)
        try:
            engine = self._loader.engine()
            prepare_weights(engine.corpus, engine.encoder, engine.embeddings, progress=self._on_progress)
            self._loader.replace(engine.with_prepared())
        except DitsError as error:
            self.error = error
        except Exception as error:  # whatever it is, the page has to say that preparing ended
            self.error = DitsError(f"The weights could not be prepared ({type(error).__name__}: {error}).")
            raise

    def _on_progress(self, what: str, done: int, total: int) -> None:
        self.progress = (what, done, total)
        self._loader.go_on()

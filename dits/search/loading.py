"""Loading of everything that search needs, by the names that users give."""

from collections.abc import Sequence
from pathlib import Path

from dits.common.errors import CheckpointError
from dits.corpora.embeddings import corpus_embeddings
from dits.corpora.index_location import is_index
from dits.corpora.names import Progress, open_corpus, report_progress
from dits.encoders.openclip import BUNDLED, load_encoder
from dits.models.checkpoint import find_weights, prepared_weights
from dits.models.retrieval import SEARCH_METHODS
from dits.search.engine import FindCandidates, SearchEngine
from dits.search.methods import Derive, LoadedMethod, load_method


def load_engine(
    corpus: str = "demo",
    encoder: str = BUNDLED,
    methods: Sequence[str] | None = None,
    weights: Path | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    allow_missing: bool = False,
    device: str | None = None,
    batch_queries: bool = False,
) -> SearchEngine:
    """Loads everything that search needs.

    Args:
        corpus: see `open_corpus`; or an index of one's own videos: its folder or URL, or "index", the default one.
        encoder: see `dits.encoders.openclip.load_encoder`.
        methods: which of "mean", "xpool" and "dits" to load; by default all, or those that `weights` holds, where it
            holds any (an encoder that was tuned with one method has no other), and mean pooling.
        weights: a folder with <method>.safetensors; by default see `dits.models.checkpoint.find_weights`.
        progress: told what is being done.
        strict: see `open_corpus`.
        allow_missing: leave out the methods that no weights were named, shipped or prepared for, instead of raising.
            Prepared weights that cannot be used count as missing.
        device: see `dits.encoders.openclip.load_encoder`.
        batch_queries: see `SearchEngine`: for many who ask at the same time.

    Raises:
        DitsError: anything is missing, damaged, or made for another encoder; the message says what.
    """
    notices: list[str] = []
    derive: Derive | None = None
    candidates: FindCandidates | None = None
    if is_index(corpus):
        from dits.search.indexed import indexed_videos

        report_progress(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder, device)
        opened, embeddings, derive, candidates = indexed_videos(corpus, loaded_encoder, progress, notices.append)
    else:
        opened = open_corpus(corpus, progress, notices.append, strict)
        report_progress(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder, device)
        embeddings = corpus_embeddings(
            opened,
            loaded_encoder,
            lambda done, total: report_progress(progress, "Embedding the clips", done, total),
            notices.append,
        )
    report_progress(progress, "Loading the weights", 0, 1)
    loaded: dict[str, LoadedMethod] = {}
    missing: dict[str, str | None] = {}
    for name in methods or _methods_of(weights):
        try:
            loaded[name] = load_method(name, loaded_encoder, embeddings.frames, weights, derive)
        except CheckpointError as error:
            prepared = prepared_weights(name, loaded_encoder.id)
            if not allow_missing or find_weights(name, loaded_encoder.id, weights) != prepared:
                raise  # what was named or shipped must be whole
            missing[name] = str(error) if prepared.is_file() else None
    return SearchEngine(opened, loaded_encoder, embeddings, loaded, notices, missing, derive, candidates, batch_queries)


def _methods_of(weights: Path | None) -> Sequence[str]:
    held = [name for name in SEARCH_METHODS if weights and (weights / f"{name}.safetensors").is_file()]
    return tuple(dict.fromkeys(("mean", *held))) if held else SEARCH_METHODS

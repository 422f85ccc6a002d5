"""Loading of a search engine from the names of a corpus, an encoder and methods."""

from collections.abc import Sequence
from pathlib import Path

from dits.common.errors import CheckpointError
from dits.corpora.embeddings import corpus_embeddings
from dits.corpora.index_location import is_index
from dits.corpora.names import Progress, open_corpus, report_progress
from dits.encoders.openclip import BUNDLED, load_encoder
from dits.models.checkpoint import find_weights, prepared_weights
from dits.models.retrieval import SEARCH_METHODS
from dits.search.engine import SearchEngine
from dits.search.methods import DerivedLookup, LoadedMethod, load_method
from dits.search.ranker import FindCandidates


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
    """Load a search engine.

    Args:
        corpus: see `open_corpus`; or an index of videos: its folder or URL, or "index" for the default index.
        encoder: see `dits.encoders.openclip.load_encoder`.
        methods: any of "mean", "xpool" and "dits". By default all; if the folder `weights` has weights of any of them,
            only these and mean pooling (a tuned encoder can have weights of one method only).
        weights: a folder with <method>.safetensors; by default see `dits.models.checkpoint.find_weights`.
        progress: called with the progress of loading.
        strict: see `open_corpus`.
        allow_missing: leave out methods without weights instead of raising, except if `weights` was given or the
            shipped weights cannot be used. Prepared weights that cannot be used count as missing.
        device: see `dits.encoders.openclip.load_encoder`.
        batch_queries: see `SearchEngine`; for many concurrent queries.

    Raises:
        DitsError: anything is missing, damaged, or made for another encoder; the message says what.
    """
    notices: list[str] = []
    derive: DerivedLookup | None = None
    finder: FindCandidates | None = None
    if is_index(corpus):
        from dits.search.indexed import indexed_videos

        report_progress(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder, device)
        opened, embeddings, derive, finder = indexed_videos(corpus, loaded_encoder, progress, notices.append)
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
                raise  # given and shipped weights must be valid
            missing[name] = str(error) if prepared.is_file() else None
    return SearchEngine(opened, loaded_encoder, embeddings, loaded, notices, missing, derive, finder, batch_queries)


def _methods_of(weights: Path | None) -> Sequence[str]:
    names = [name for name in SEARCH_METHODS if weights and (weights / f"{name}.safetensors").is_file()]
    return tuple(dict.fromkeys(("mean", *names))) if names else SEARCH_METHODS

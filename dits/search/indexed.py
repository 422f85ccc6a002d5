"""An index as what search runs on: clips, embeddings, and which of them are scored."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dits.common.errors import InputError
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.corpora.index_location import location_of
from dits.corpora.names import Progress
from dits.encoders.openclip import OpenClipEncoder
from dits.index.snapshot import open_snapshot
from dits.index.store import VideoIndex
from dits.models.retrieval import RetrievalModel
from dits.scoring.gallery import Derived
from dits.scoring.gallery import derive as derive_arrays
from dits.search.candidates import candidate_search
from dits.search.engine import FindCandidates, SearchEngine
from dits.search.methods import Derive

Indexed = tuple[Corpus, CorpusEmbeddings, Derive, FindCandidates | None]


def search_index(
    engine: SearchEngine, name: str, progress: Progress | None = None, folder: Path | None = None
) -> SearchEngine:
    """An engine over an index, with the encoder and the methods of another one; see `indexed_videos`."""
    notices: list[str] = []
    corpus, embeddings, derive, candidates = indexed_videos(name, engine.encoder, progress, notices.append, folder)
    return engine.over(corpus, embeddings, notices, derive, candidates)


def indexed_videos(
    name: str,
    encoder: OpenClipEncoder,
    progress: Progress | None,
    notice: Callable[[str], None],
    folder: Path | None = None,
) -> Indexed:
    """The searchable videos of an index: as a corpus without captions, their embeddings, what is kept of them under
    weights, and how candidates are found where there are too many to score all.

    Args:
        folder: where what search runs on is kept, by default in the cache.

    Raises:
        InputError: the index holds no videos.
        IndexStoreError: there is none, it is damaged, or of another version or encoder.
        StorageError: the cache folder cannot be written.
    """
    index = VideoIndex.open(location_of(name), encoder)
    snapshot = open_snapshot(index, progress=_on_progress(progress), root=folder)
    if not len(snapshot):
        raise InputError(f"The index {index.location} holds no videos yet: add some with `python -m dits index add`.")
    corpus = Corpus(index.location, snapshot.clips)
    ids = tuple(name.decode() for name in snapshot.ids.tolist())
    embeddings = CorpusEmbeddings(encoder.id, ids, snapshot.frames, snapshot.times)

    def derive(weights: str, model: RetrievalModel) -> Derived:
        return snapshot.derived(weights, partial(derive_arrays, model))

    return corpus, embeddings, derive, candidate_search(index, snapshot, encoder.device, notice)


def _on_progress(progress: Progress | None) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress("Reading the index", done, total)) if progress else None

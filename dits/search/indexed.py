"""Search over an index: its videos as a corpus with embeddings, cached arrays and candidate search."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dits.common.errors import InputError
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.corpora.index_location import location_of
from dits.corpora.names import Progress
from dits.encoders.openclip import OpenClipEncoder
from dits.index.snapshot import Snapshot, open_snapshot
from dits.index.store import VideoIndex
from dits.scoring.gallery import derive
from dits.search.candidates import candidate_search
from dits.search.engine import SearchEngine
from dits.search.methods import DerivedLookup
from dits.search.ranker import FindCandidates

IndexedVideos = tuple[Corpus, CorpusEmbeddings, DerivedLookup, FindCandidates | None]


def search_index(
    engine: SearchEngine, name: str, progress: Progress | None = None, folder: Path | None = None
) -> SearchEngine:
    """An engine over an index, with the encoder and the methods of another engine; see `indexed_videos`."""
    notices: list[str] = []
    corpus, embeddings, derived, finder = indexed_videos(name, engine.encoder, progress, notices.append, folder)
    return engine.with_corpus(corpus, embeddings, notices, derived, finder)


def indexed_videos(
    name: str,
    encoder: OpenClipEncoder,
    progress: Progress | None,
    notice: Callable[[str], None],
    folder: Path | None = None,
) -> IndexedVideos:
    """The videos of an index: a corpus without captions, its embeddings, `cached_derive` and `candidate_search`.

    Args:
        folder: the folder of the snapshot, by default in the cache.

    Raises:
        InputError: the index holds no videos.
        IndexStoreError: the index is missing, damaged, or of another version or encoder.
        StorageError: the cache folder cannot be written.
    """
    index = VideoIndex.open(location_of(name), encoder)
    on_progress = partial(progress, "Reading the index") if progress else None
    snapshot = open_snapshot(index, progress=on_progress, root=folder)
    if not len(snapshot):
        raise InputError(f"The index {index.location} holds no videos yet: add some with `python -m dits index add`.")
    corpus = Corpus(index.location, snapshot.clips)
    ids = tuple(name.decode() for name in snapshot.ids.tolist())
    embeddings = CorpusEmbeddings(encoder.id, ids, snapshot.frames, snapshot.times)
    return corpus, embeddings, cached_derive(snapshot), candidate_search(index, snapshot, encoder.device, notice)


def cached_derive(snapshot: Snapshot) -> DerivedLookup:
    """The function that derives the arrays of a snapshot for a model, or reads them from the cache."""
    return lambda weights, model: snapshot.derived(weights, partial(derive, model))

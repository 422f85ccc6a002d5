"""Recall of the candidates from a vector index, measured against the exact ranking."""

import torch
from torch import Tensor

from dits.common.errors import IndexStoreError
from dits.corpora.demo import demo_corpus
from dits.encoders.openclip import OpenClipEncoder
from dits.index.snapshot import open_snapshot
from dits.index.store import VideoIndex
from dits.models.checkpoint import find_weights
from dits.models.retrieval import SEARCH_METHODS
from dits.search.candidates import candidate_search
from dits.search.indexed import cached_derive
from dits.search.methods import LoadedMethod, load_method
from dits.search.ranker import FindCandidates

BEST = 10
_QUERIES = 64


@torch.inference_mode()
def candidate_recall(index: VideoIndex, encoder: OpenClipEncoder) -> dict[str, float]:
    """Recall@10 of candidates against the exact ranking: for mean pooling, and for X-Pool and DITS with weights.

    The queries are captions of the demo corpus, for every index: sentences that people wrote.

    Raises:
        IndexStoreError: there is no vector index, no video, or the index cannot be read.
        CheckpointError: weights are damaged.
    """
    if not index.has_vector_index:
        raise IndexStoreError(
            f"The index {index.location} has no vector index for candidates: make it with "
            "`python -m dits index optimize --vector-index`."
        )
    snapshot = open_snapshot(index)
    if not len(snapshot):
        raise IndexStoreError(f"The index {index.location} holds no videos yet.")
    candidates = candidate_search(index, snapshot, torch.device("cpu"), lambda _: None, exact_up_to=0)
    assert candidates is not None
    captions = [query.caption for query in demo_corpus().queries()]
    texts = encoder.encode_text(captions[:: max(1, len(captions) // _QUERIES)][:_QUERIES])
    recalls = {}
    for name in SEARCH_METHODS:
        if name == "mean" or find_weights(name, encoder.id, None).is_file():
            loaded = load_method(name, encoder, snapshot.frames, derive=cached_derive(snapshot))
            recalls[name] = recall(loaded, texts, candidates)
    return recalls


def recall(loaded: LoadedMethod, texts: Tensor, find_candidates: FindCandidates) -> float:
    """The share (0 to 1) of the ten best videos of the texts (T, d) that are also the ten best among the candidates.

    The candidates are those of a search by this method alone.
    """
    exact, shares = loaded.gallery.top(texts, BEST).rows, []
    for text, best in zip(texts[:, None], exact, strict=True):
        aligned = loaded.model.align(text.to(loaded.model.logit_scale.device)).cpu()
        candidates = find_candidates(aligned)
        assert candidates is not None
        found = loaded.gallery.select(candidates.rows).top(text, BEST).rows[0]
        shares.append(float(torch.isin(best, candidates.rows[found]).float().mean()))
    return sum(shares) / len(shares)

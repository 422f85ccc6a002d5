"""Ranks the videos of a corpus for a batch of queries, by every loaded method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dits.common.memory import memory_errors
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import OpenClipEncoder
from dits.models.retrieval import RetrievalModel
from dits.scoring.exact import pad_to_multiple_of_four
from dits.scoring.gallery import Gallery
from dits.scoring.ranking import ranks_at, top_k
from dits.search.methods import LoadedMethod
from dits.search.query import PreparedQuery
from dits.search.results import FrameWeight, Hit, SearchResult


@dataclass(frozen=True)
class Candidates:
    """The videos that are scored for a query, if not all are.

    Attributes:
        rows: (C,) rows of the videos, ascending.
        sample: (C,) mask of the videos that do not depend on the query: a sample of the whole gallery.
    """

    rows: Tensor
    sample: Tensor


FindCandidates = Callable[[Tensor], Candidates | None]


@dataclass(frozen=True)
class Ranker:
    """Encodes, aligns and scores queries.

    Attributes:
        find_candidates: see `dits.search.engine.SearchEngine`.
        batched: whether a query must have the same results in every batch.
    """

    corpus: Corpus
    encoder: OpenClipEncoder
    embeddings: CorpusEmbeddings
    methods: Mapping[str, LoadedMethod]
    find_candidates: FindCandidates | None
    batched: bool

    def rank(self, queries: Sequence[PreparedQuery]) -> list[dict[str, SearchResult]]:
        """The results of each query by every method, best videos first."""
        with memory_errors():
            encode = self.encoder.encode_each if self.batched else self.encoder.encode_text
            texts = encode([query.query for query in queries])
            aligned = self._align(texts)
            if self.find_candidates is not None:
                by_query = [{name: a[row : row + 1] for name, a in aligned.items()} for row in range(len(texts))]
                return [self._search_candidates(*args) for args in zip(queries, texts.split(1), by_query, strict=True)]
            galleries = {name: loaded.gallery for name, loaded in self.methods.items()}
            scores = {name: gallery.scores(texts, aligned.get(name)) for name, gallery in galleries.items()}
            return [
                self._results(query, texts[row], {name: s[row] for name, s in scores.items()}, galleries, None)
                for row, query in enumerate(queries)
            ]

    def _search_candidates(
        self, query: PreparedQuery, text: Tensor, aligned: dict[str, Tensor]
    ) -> dict[str, SearchResult]:
        assert self.find_candidates is not None
        candidates = self.find_candidates(torch.cat(list(aligned.values()) or [text]).unique(dim=0))
        galleries = {
            name: loaded.gallery if candidates is None else loaded.gallery.select(candidates.rows)
            for name, loaded in self.methods.items()
        }
        scores = {name: gallery.scores(text, aligned.get(name))[0] for name, gallery in galleries.items()}
        return self._results(query, text[0], scores, galleries, candidates)

    def _results(
        self,
        query: PreparedQuery,
        text: Tensor,
        scores: dict[str, Tensor],
        galleries: Mapping[str, Gallery],
        candidates: Candidates | None,
    ) -> dict[str, SearchResult]:
        """The results of one text (d,) by each method, given its scores (V,) in the galleries."""
        results = {}
        for method, gallery in galleries.items():
            best = top_k([scores[method][None]], query.top).rows[0]
            weights = gallery.frame_weights(text, best)
            moments = gallery.best_frames(text, best, weights)
            ranks = {name: ranks_at(values, best).tolist() for name, values in scores.items()}
            sample = scores[method] if candidates is None else scores[method][candidates.sample]
            mean, deviation = sample.mean(), sample.std().clamp_min(1e-9) if len(sample) > 1 else torch.tensor(1.0)
            deviations = (scores[method][best] - mean) / deviation
            rows = best if candidates is None else candidates.rows[best]
            columns = (rows, scores[method][best], deviations, self.embeddings.times[rows], weights, moments)
            hits = zip(*(column.tolist() for column in columns), strict=True)  # reading tensors one by one is slow
            results[method] = SearchResult(
                query=query.query,
                encoder=self.encoder.id,
                method=method,
                hits=tuple(
                    Hit(
                        rank=rank,
                        clip=self.corpus.clips[row],
                        score=score,
                        deviations=above,
                        frames=tuple(FrameWeight(round(t, 3), w) for t, w in zip(times, frame_weights, strict=True)),
                        best_moment=round(times[moment], 3),
                        ranks={name: values[rank - 1] for name, values in ranks.items()},
                    )
                    for rank, (row, score, above, times, frame_weights, moment) in enumerate(hits, start=1)
                ),
                spread=(float(sample.min()), float(mean), float(sample.max())),
                notice=query.notice,
                exact=candidates is None,
            )
        return results

    @torch.inference_mode()
    def _align(self, texts: Tensor) -> dict[str, Tensor]:
        """Aligned embeddings (Q, d) of texts (Q, d) under each method that is not pairwise."""
        models = {name: loaded.model for name, loaded in self.methods.items() if not loaded.model.alignment.pairwise}
        return {name: self._align_by(model, texts) for name, model in models.items()}

    def _align_by(self, model: RetrievalModel, texts: Tensor) -> Tensor:
        texts = texts.to(model.logit_scale.device)
        if model.alignment.is_stochastic:  # one by one, so that each text gets the noise that it gets alone
            return torch.cat([model.align(text) for text in texts.split(1)]).cpu()
        return model.align(pad_to_multiple_of_four(texts) if self.batched else texts)[: len(texts)].cpu()

"""The search engine: ranks the videos of a corpus for a query."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dits.common.errors import InputError
from dits.common.memory import memory_errors
from dits.common.threads import CORES, compute_on
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import OpenClipEncoder
from dits.models.retrieval import RetrievalModel
from dits.scoring.exact import pad_to_multiple_of_four
from dits.scoring.gallery import Gallery
from dits.scoring.ranking import ranks_at, top_k
from dits.search.batching import QueryBatcher
from dits.search.methods import Derive, LoadedMethod, build_method, load_method
from dits.search.query import PreparedQuery, check_top, read_query
from dits.search.results import FrameWeight, Hit, SearchResult

_MAX_BATCH = 32
_MAX_SCORES = 2**24  # of a batch under one method: 64 MB
_MAX_VIDEOS_ON_ONE_CORE = 4096  # scored in less time than the text encoder takes, which several cores do not speed up


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


class SearchEngine:
    """A corpus, an encoder and trained methods, loaded once and safe to use from several threads.

    `missing` has the methods without weights for the encoder, which `dits.training.prepare` can train. Its values are
    error messages if there are weights that cannot be used.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoder: OpenClipEncoder,
        embeddings: CorpusEmbeddings,
        methods: dict[str, LoadedMethod],
        notices: Sequence[str] = (),
        missing: Mapping[str, str | None] | None = None,
        derive: Derive | None = None,
        candidates: FindCandidates | None = None,
        batch_queries: bool = False,
    ) -> None:
        """Build the engine from loaded parts.

        Args:
            candidates: finds the videos to score, given the distinct aligned embeddings (Q, d) of a query under the
                methods. All videos are scored by default, and if it returns None.
            batch_queries: queries that arrive while others are computed form a batch, which reads the weights once. A
                batch runs on one core unless there are many videos. A query has the same result in a batch as alone:
                to the last bit under the bundled encoder on a CPU (on Intel with MKL_CBWR=AUTO,STRICT), otherwise up
                to rounding. A single query takes a few milliseconds longer than without batching.
        """
        self.corpus = corpus
        self.encoder = encoder
        self.embeddings = embeddings
        self.methods = methods
        self.notices = tuple(notices)
        self.missing = dict(missing or {})
        self._derive, self._candidates = derive, candidates
        self._batch_queries = batch_queries
        max_batch = min(_MAX_BATCH, max(1, _MAX_SCORES // max(1, len(corpus)))) if batch_queries else 1
        cores = 1 if len(corpus) <= _MAX_VIDEOS_ON_ONE_CORE else CORES
        self._batcher = QueryBatcher(self._answer, max_batch, (lambda: compute_on(cores)) if batch_queries else None)

    def search(self, text: str, method: str = "dits", top: int = 5) -> SearchResult:
        """Rank the corpus for a query by one method.

        Raises:
            InputError: the query is empty, the method is not loaded, or `top` is out of range.
        """
        self.require(method)
        return self.search_all(text, top)[method]

    def require(self, method: str) -> None:
        """Check that a method is loaded.

        Raises:
            InputError: the method is not loaded; the message says whether its weights are missing.
        """
        is_name = isinstance(method, str)  # the API passes any JSON value
        if is_name and method in self.missing:
            raise InputError(
                f"The method '{method}' has no weights for the encoder {self.encoder.id} yet: press Prepare on the "
                f"page, run `python -m dits prepare`, or choose {' or '.join(self.methods)}."
            )
        if not is_name or method not in self.methods:
            raise InputError(f"There is no method '{str(method)[:40]}' here: choose one of {', '.join(self.methods)}.")

    def with_prepared(self) -> "SearchEngine":
        """An engine that also has the methods that were missing, whose weights have been trained in the meantime.

        Raises:
            CheckpointError: the weights of a method are still missing or cannot be used.
        """
        frames, derive = self.embeddings.frames, self._derive
        methods = self.methods | {n: load_method(n, self.encoder, frames, derive=derive) for n in self.missing}
        return SearchEngine(
            self.corpus, self.encoder, self.embeddings, methods, self.notices, None, derive, self._candidates,
            self._batch_queries,
        )  # fmt: skip

    def with_corpus(
        self,
        corpus: Corpus,
        embeddings: CorpusEmbeddings,
        notices: Sequence[str] = (),
        derive: Derive | None = None,
        candidates: FindCandidates | None = None,
    ) -> "SearchEngine":
        """An engine with the same encoder and methods over another corpus; see `__init__` for the arguments."""
        methods = {
            name: build_method(name, method.model, method.weights, embeddings.frames, derive)
            for name, method in self.methods.items()
        }
        return SearchEngine(
            corpus, self.encoder, embeddings, methods, notices, self.missing, derive, candidates, self._batch_queries
        )

    def search_all(self, text: str, top: int = 5) -> dict[str, SearchResult]:
        """Rank the corpus for a query by every loaded method.

        Raises:
            InputError: the query is empty, or `top` is out of range.
        """
        query, notice = read_query(text, self.encoder)
        check_top(top)
        return self._batcher(PreparedQuery(query, notice, top))

    def clean_query(self, text: str) -> str:
        """The query without control characters and superfluous spaces, as it is encoded.

        Raises:
            InputError: the query is empty.
        """
        return read_query(text, self.encoder)[0]

    def _answer(self, queries: Sequence[PreparedQuery]) -> list[dict[str, SearchResult]]:
        """The results of each query by every method."""
        with memory_errors():
            encode = self.encoder.encode_each if self._batch_queries else self.encoder.encode_text
            texts = encode([query.query for query in queries])
            aligned = self._align(texts)
            if self._candidates is not None:
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
        assert self._candidates is not None
        candidates = self._candidates(torch.cat(list(aligned.values()) or [text]).unique(dim=0))
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
        return model.align(pad_to_multiple_of_four(texts) if self._batch_queries else texts)[: len(texts)].cpu()

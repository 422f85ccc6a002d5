"""Search: a sentence in, ranked videos out, with what each score means."""

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
from dits.scoring.exact import padded_to_four
from dits.scoring.gallery import Gallery
from dits.scoring.ranking import ranks_at, top_of
from dits.search.batching import QueryBatcher
from dits.search.methods import Derive, LoadedMethod, load_method, method_over
from dits.search.query import PreparedQuery, check_top, read_query
from dits.search.results import FrameWeight, Hit, SearchResult

_QUERIES_AT_ONCE = 32
_SCORES_AT_ONCE = 2**24  # of one method: 64 MB
_FEW_VIDEOS = 4096  # so many are scored in less time than the sentences take, which several cores take no less


@dataclass(frozen=True)
class Candidates:
    """What is scored where not all videos are.

    Attributes:
        rows: (C,) the videos' places, ascending.
        sample: (C,) marks those that were drawn without regard to the query: they stand for the whole gallery.
    """

    rows: Tensor
    sample: Tensor


FindCandidates = Callable[[Tensor], Candidates | None]


class SearchEngine:
    """A corpus, an encoder and trained methods, loaded once and safe to use from several threads.

    `missing` names the methods that have no weights for the encoder, which `dits.training.prepare` makes; where there
    are some that cannot be used, with a sentence why.
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
        """`candidates` says which videos are scored for a text; by default, and where it gives None, all are. It gets
        the different embeddings (Q, d) that stand for the text under the methods.

        `batch_queries`: queries that arrive while others are computed form a batch, which reads the weights once. A
        batch runs on one core, unless there are many videos. A query has the same answer in a batch as alone: to the
        last bit under the bundled encoder on a CPU (on Intel with MKL_CBWR=AUTO,STRICT), up to rounding elsewhere. A
        query that comes alone takes a few milliseconds longer than without batching.
        """
        self.corpus = corpus
        self.encoder = encoder
        self.embeddings = embeddings
        self.methods = methods
        self.notices = tuple(notices)
        self.missing = dict(missing or {})
        self._derive, self._candidates = derive, candidates
        self._batch_queries = batch_queries
        at_once = min(_QUERIES_AT_ONCE, max(1, _SCORES_AT_ONCE // max(1, len(corpus)))) if batch_queries else 1
        used = 1 if len(corpus) <= _FEW_VIDEOS else CORES  # one batch at a time has them all
        self._answers = QueryBatcher(self._answer, at_once, (lambda: compute_on(used)) if batch_queries else None)

    def search(self, text: str, method: str = "dits", top: int = 5) -> SearchResult:
        """Ranks the corpus for a sentence by one method.

        Raises:
            InputError: the query is empty, the method is not loaded, or `top` is out of range.
        """
        self.require(method)
        return self.search_all(text, top)[method]

    def require(self, method: str) -> None:
        """Nothing, where the method is loaded.

        Raises:
            InputError: it is not; the message says whether weights would help.
        """
        known = isinstance(method, str)  # anything may have come by the API
        if known and method in self.missing:
            raise InputError(
                f"The method '{method}' has no weights for the encoder {self.encoder.id} yet: press Prepare on the "
                f"page, run `python -m dits prepare`, or choose {' or '.join(self.methods)}."
            )
        if not known or method not in self.methods:
            named = str(method)[:40]
            raise InputError(f"There is no method '{named}' here: choose one of {', '.join(self.methods)}.")

    def with_prepared(self) -> "SearchEngine":
        """The same engine with the methods that were missing and have weights now.

        Raises:
            CheckpointError: one still has none, or they cannot be used.
        """
        frames, derive = self.embeddings.frames, self._derive
        loaded = {name: load_method(name, self.encoder, frames, derive=derive) for name in self.missing}
        methods = {**self.methods, **loaded}
        return SearchEngine(
            self.corpus, self.encoder, self.embeddings, methods, self.notices, None, derive, self._candidates,
            self._batch_queries,
        )  # fmt: skip

    def over(
        self,
        corpus: Corpus,
        embeddings: CorpusEmbeddings,
        notices: Sequence[str] = (),
        derive: Derive | None = None,
        candidates: FindCandidates | None = None,
    ) -> "SearchEngine":
        """The same encoder and methods over other videos; see `__init__` for what is given."""
        methods = {
            name: method_over(name, method.model, method.weights, embeddings.frames, derive)
            for name, method in self.methods.items()
        }
        missing, batch_queries = self.missing, self._batch_queries
        return SearchEngine(
            corpus, self.encoder, embeddings, methods, notices, missing, derive, candidates, batch_queries
        )

    def search_all(self, text: str, top: int = 5) -> dict[str, SearchResult]:
        """Ranks the corpus for a sentence by every loaded method.

        Raises:
            InputError: the query is empty, or `top` is out of range.
        """
        query, notice = read_query(text, self.encoder)
        check_top(top)
        return self._answers(PreparedQuery(query, notice, top))

    def readable(self, text: str) -> str:
        """The query as it is encoded: without control characters and stray spaces.

        Raises:
            InputError: the query is empty.
        """
        return read_query(text, self.encoder)[0]

    def _answer(self, questions: Sequence[PreparedQuery]) -> list[dict[str, SearchResult]]:
        """The ranking of each question by every method."""
        with memory_errors():
            return self._ranked(questions)

    def _ranked(self, questions: Sequence[PreparedQuery]) -> list[dict[str, SearchResult]]:
        encode = self.encoder.encode_each if self._batch_queries else self.encoder.encode_text
        texts = encode([question.query for question in questions])
        aligned = self._aligned(texts)
        if self._candidates is None:
            galleries = {name: loaded.gallery for name, loaded in self.methods.items()}
            scores = {name: gallery.scores(texts, aligned.get(name)) for name, gallery in galleries.items()}
            return [
                self._results(question, texts[row], {name: of[row] for name, of in scores.items()}, galleries, None)
                for row, question in enumerate(questions)
            ]
        ways = [{name: of[row : row + 1] for name, of in aligned.items()} for row in range(len(texts))]
        return [self._among_candidates(*each) for each in zip(questions, texts.split(1), ways, strict=True)]

    def _among_candidates(
        self, question: PreparedQuery, text: Tensor, aligned: dict[str, Tensor]
    ) -> dict[str, SearchResult]:
        assert self._candidates is not None
        some = self._candidates(torch.cat(list(aligned.values()) or [text]).unique(dim=0))
        galleries = {
            name: loaded.gallery if some is None else loaded.gallery.select(some.rows)
            for name, loaded in self.methods.items()
        }
        scores = {name: gallery.scores(text, aligned.get(name))[0] for name, gallery in galleries.items()}
        return self._results(question, text[0], scores, galleries, some)

    def _results(
        self,
        question: PreparedQuery,
        text: Tensor,
        scores: dict[str, Tensor],
        galleries: Mapping[str, Gallery],
        some: Candidates | None,
    ) -> dict[str, SearchResult]:
        """The results of one text (d,) by each method, of its scores (V,) in the galleries."""
        best = {name: top_of([values[None]], question.top).rows[0] for name, values in scores.items()}
        weights = {name: gallery.frame_weights(text, best[name]) for name, gallery in galleries.items()}
        frames = {name: gallery.best_frames(text, best[name], weights[name]) for name, gallery in galleries.items()}
        ranks = {
            name: {other: ranks_at(values, rows).tolist() for other, values in scores.items()}
            for name, rows in best.items()
        }
        return {
            name: SearchResult(
                query=question.query,
                encoder=self.encoder.id,
                method=name,
                hits=self._hits(values, best[name], ranks[name], weights[name], frames[name], some),
                spread=(float(of_all.min()), float(of_all.mean()), float(of_all.max())),
                notice=question.notice,
                exact=some is None,
            )
            for name, values in scores.items()
            for of_all in (_of_all(values, some),)
        }

    @torch.inference_mode()
    def _aligned(self, texts: Tensor) -> dict[str, Tensor]:
        """What stands for texts (Q, d) under each method that has such embeddings (Q, d)."""
        models = {name: loaded.model for name, loaded in self.methods.items() if not loaded.model.alignment.pairwise}
        return {name: self._aligned_by(model, texts) for name, model in models.items()}

    def _aligned_by(self, model: RetrievalModel, texts: Tensor) -> Tensor:
        texts = texts.to(model.logit_scale.device)
        if model.alignment.draws:  # a text alone meets the noise of the first
            return torch.cat([model.align(text) for text in texts.split(1)]).cpu()
        return model.align(padded_to_four(texts) if self._batch_queries else texts)[: len(texts)].cpu()

    def _hits(
        self,
        scores: Tensor,
        best: Tensor,
        ranks: dict[str, list[int]],
        weights: Tensor,
        frames: Tensor,
        some: Candidates | None,
    ) -> tuple[Hit, ...]:
        """The best of the scores (C,), by their places in them, with what belongs to each in the same order."""
        of_all = _of_all(scores, some)
        mean, deviation = of_all.mean(), of_all.std().clamp_min(1e-9) if len(of_all) > 1 else torch.tensor(1.0)
        deviations = (scores[best] - mean) / deviation
        rows = best if some is None else some.rows[best]
        times = self.embeddings.times[rows]
        of_hits = (rows, scores[best], deviations, times, weights, frames)  # numbers, for tensors of one are slow
        return tuple(
            Hit(
                rank=rank,
                clip=self.corpus.clips[row],
                score=score,
                deviations=above,
                frames=tuple(FrameWeight(round(t, 3), weight) for t, weight in zip(shown, of_frames, strict=True)),
                best_moment=round(shown[moment], 3),
                ranks={name: places[rank - 1] for name, places in ranks.items()},
            )
            for rank, (row, score, above, shown, of_frames, moment) in enumerate(
                zip(*(of.tolist() for of in of_hits), strict=True), start=1
            )
        )


def _of_all(scores: Tensor, some: Candidates | None) -> Tensor:
    """Scores that stand for those of all videos."""
    return scores if some is None else scores[some.sample]

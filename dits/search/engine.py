"""The search engine: ranks the videos of a corpus for a query."""

from collections.abc import Mapping, Sequence

from dits.common.errors import InputError
from dits.common.threads import CORES, compute_on
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import OpenClipEncoder
from dits.search.batching import QueryBatcher
from dits.search.methods import DerivedLookup, LoadedMethod, build_method, load_method
from dits.search.query import PreparedQuery, check_top, read_query
from dits.search.ranker import FindCandidates, Ranker
from dits.search.results import SearchResult

_MAX_BATCH = 32
_MAX_SCORES = 2**24  # of a batch under one method: 64 MB
_MAX_VIDEOS_ON_ONE_CORE = 4096  # scored in less time than the text encoder takes, which several cores do not speed up


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
        derive: DerivedLookup | None = None,
        find_candidates: FindCandidates | None = None,
        batch_queries: bool = False,
    ) -> None:
        """Build the engine from loaded parts.

        Args:
            find_candidates: finds the videos to score, given the distinct aligned embeddings (Q, d) of a query under
                the methods. All videos are scored by default, and if it returns None.
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
        self._derive, self._find_candidates = derive, find_candidates
        self._batch_queries = batch_queries
        max_batch = min(_MAX_BATCH, max(1, _MAX_SCORES // max(1, len(corpus)))) if batch_queries else 1
        cores = 1 if len(corpus) <= _MAX_VIDEOS_ON_ONE_CORE else CORES
        self._ranker = Ranker(corpus, encoder, embeddings, methods, find_candidates, batch_queries)
        self._batcher = QueryBatcher(
            self._ranker.rank, max_batch, (lambda: compute_on(cores)) if batch_queries else None
        )

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
            self.corpus, self.encoder, self.embeddings, methods, self.notices, None, derive, self._find_candidates,
            self._batch_queries,
        )  # fmt: skip

    def with_corpus(
        self,
        corpus: Corpus,
        embeddings: CorpusEmbeddings,
        notices: Sequence[str] = (),
        derive: DerivedLookup | None = None,
        find_candidates: FindCandidates | None = None,
    ) -> "SearchEngine":
        """An engine with the same encoder and methods over another corpus; see `__init__` for the arguments."""
        methods = {
            name: build_method(name, method.model, method.weights_sha256, embeddings.frames, derive)
            for name, method in self.methods.items()
        }
        return SearchEngine(
            corpus, self.encoder, embeddings, methods, notices, self.missing, derive, find_candidates,
            self._batch_queries,
        )  # fmt: skip

    def with_encoder(self, encoder: OpenClipEncoder) -> "SearchEngine":
        """An engine that encodes queries with the same encoder on another device."""
        return SearchEngine(
            self.corpus, encoder, self.embeddings, self.methods, self.notices, self.missing, self._derive,
            self._find_candidates, self._batch_queries,
        )  # fmt: skip

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

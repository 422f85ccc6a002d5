"""Search: a sentence in, ranked videos out, with what each score means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dits.common.errors import CheckpointError, InputError
from dits.common.memory import memory_errors
from dits.common.threads import CORES, compute_on
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings, corpus_embeddings
from dits.corpora.index_location import is_index
from dits.corpora.names import Progress, open_corpus, tell
from dits.encoders.openclip import BUNDLED, OpenClipEncoder, load_encoder
from dits.models.checkpoint import find_weights, load_checkpoint, prepared_weights
from dits.models.retrieval import SEARCH_METHODS, ModelConfig, RetrievalModel
from dits.scoring.exact import in_fours
from dits.scoring.gallery import Derived, Gallery
from dits.scoring.ranking import ranks_at, top_of
from dits.search.batching import Together
from dits.search.query import Question, check_top, read_query
from dits.search.results import FrameWeight, Hit, SearchResult

_QUERIES_AT_ONCE = 32
_SCORES_AT_ONCE = 2**24  # of one method: 64 MB
_FEW_VIDEOS = 4096  # so many are scored in less time than the sentences take, which several cores take no less


@dataclass(frozen=True)
class LoadedMethod:
    """A method ready to search with: its model, the gallery prepared for it, and the checksum of its weights."""

    model: RetrievalModel
    gallery: Gallery
    weights: str | None


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

Derive = Callable[[str, RetrievalModel], Derived | None]
"""Gives what a gallery keeps of the videos under weights of a name, see `RetrievalModel.derive`; None to compute it."""


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
        together: bool = False,
    ) -> None:
        """`candidates` says which videos are scored for a text; by default, and where it gives None, all are. It gets
        the different embeddings (Q, d) that stand for the text under the methods.

        `together`: queries that wait for each other are computed together, for what the weights that are read take
        once; on one core, unless there are many videos. One that comes alone has the same answer, to the last bit under
        the bundled encoder on a CPU and up to rounding elsewhere, and takes a few milliseconds more than without.
        """
        self.corpus = corpus
        self.encoder = encoder
        self.embeddings = embeddings
        self.methods = methods
        self.notices = tuple(notices)
        self.missing = dict(missing or {})
        self._derive, self._candidates = derive, candidates
        self._together = together
        at_once = min(_QUERIES_AT_ONCE, max(1, _SCORES_AT_ONCE // max(1, len(corpus)))) if together else 1
        used = 1 if len(corpus) <= _FEW_VIDEOS else CORES  # one batch at a time has them all
        self._answers = Together(self._answer, at_once, (lambda: compute_on(used)) if together else None)

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
            self._together,
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
            name: _over(name, method.model, method.weights, embeddings.frames, derive)
            for name, method in self.methods.items()
        }
        missing, together = self.missing, self._together
        return SearchEngine(corpus, self.encoder, embeddings, methods, notices, missing, derive, candidates, together)

    def search_all(self, text: str, top: int = 5) -> dict[str, SearchResult]:
        """Ranks the corpus for a sentence by every loaded method.

        Raises:
            InputError: the query is empty, or `top` is out of range.
        """
        query, notice = read_query(text, self.encoder)
        check_top(top)
        return self._answers(Question(query, notice, top))

    def readable(self, text: str) -> str:
        """The query as it is encoded: without control characters and stray spaces.

        Raises:
            InputError: the query is empty.
        """
        return read_query(text, self.encoder)[0]

    def _answer(self, questions: Sequence[Question]) -> list[dict[str, SearchResult]]:
        """The ranking of each question by every method."""
        with memory_errors():
            return self._ranked(questions)

    def _ranked(self, questions: Sequence[Question]) -> list[dict[str, SearchResult]]:
        encode = self.encoder.encode_each if self._together else self.encoder.encode_text
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
        self, question: Question, text: Tensor, aligned: dict[str, Tensor]
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
        question: Question,
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
        return model.align(in_fours(texts) if self._together else texts)[: len(texts)].cpu()

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


def load_engine(
    corpus: str = "demo",
    encoder: str = BUNDLED,
    methods: Sequence[str] | None = None,
    weights: Path | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    allow_missing: bool = False,
    device: str | None = None,
    together: bool = False,
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
        together: see `SearchEngine`: for many who ask at the same time.

    Raises:
        DitsError: anything is missing, damaged, or made for another encoder; the message says what.
    """
    notices: list[str] = []
    derive: Derive | None = None
    candidates: FindCandidates | None = None
    if is_index(corpus):
        from dits.search.indexed import indexed_videos

        tell(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder, device)
        opened, embeddings, derive, candidates = indexed_videos(corpus, loaded_encoder, progress, notices.append)
    else:
        opened = open_corpus(corpus, progress, notices.append, strict)
        tell(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder, device)
        embeddings = corpus_embeddings(
            opened,
            loaded_encoder,
            lambda done, total: tell(progress, "Embedding the clips", done, total),
            notices.append,
        )
    tell(progress, "Loading the weights", 0, 1)
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
    return SearchEngine(opened, loaded_encoder, embeddings, loaded, notices, missing, derive, candidates, together)


def _methods_of(weights: Path | None) -> Sequence[str]:
    held = [name for name in SEARCH_METHODS if weights and (weights / f"{name}.safetensors").is_file()]
    return tuple(dict.fromkeys(("mean", *held))) if held else SEARCH_METHODS


def load_method(
    method: str,
    encoder: OpenClipEncoder,
    frames: Tensor,
    weights: Path | None = None,
    derive: Derive | None = None,
) -> LoadedMethod:
    """A method with its weights, and the videos (V, F, d) prepared for it, on the encoder's device.

    Raises:
        InputError: there is no such method.
        CheckpointError: the weights are missing, damaged, or made for another encoder.
    """
    return _over(method, *load_model(method, encoder, weights), frames, derive)


def load_model(method: str, encoder: OpenClipEncoder, weights: Path | None = None) -> tuple[RetrievalModel, str | None]:
    """A method's model on the encoder's device, and the checksum of its weights, which mean pooling has none of.

    Raises:
        CheckpointError: as `load_method`.
    """
    path = weights_of(method, encoder.id, weights)
    checkpoint = load_checkpoint(path, encoder, method) if path else None
    model = checkpoint.model if checkpoint else RetrievalModel(ModelConfig(method=method)).eval()
    return model.to(encoder.device), checkpoint.sha256 if checkpoint else None


def weights_name(method: str, sha256: str | None) -> str:
    """What is derived under a method's weights is kept by this name, see `Derive`."""
    return f"{method}-{(sha256 or 'none')[:16]}"


def _over(
    method: str, model: RetrievalModel, sha256: str | None, frames: Tensor, derive: Derive | None
) -> LoadedMethod:
    """A method with the checksum of its weights, over videos (V, F, d)."""
    derived = derive(weights_name(method, sha256), model) if derive else None
    return LoadedMethod(model, model.gallery(frames, derived), sha256)


def weights_of(method: str, encoder_id: str, weights: Path | None = None) -> Path | None:
    """Where a method's weights lie; None for mean pooling, which has none. To be asked before the long work.

    Raises:
        CheckpointError: they are missing.
    """
    if method == "mean":
        return None
    path = find_weights(method, encoder_id, weights)
    if path.is_file():
        return path
    if weights is not None:
        raise CheckpointError(f"The weights are missing: there is no file {path}. Name another folder with --weights.")
    if method in SEARCH_METHODS:
        make = "make them with `python -m dits prepare` and the same --encoder, or name their folder with --weights."
    else:
        make = f"train them with `python -m dits train {method}`, and name their folder with --weights."
    raise CheckpointError(f"There are no weights of the method '{method}' for the encoder {encoder_id}: {make}")

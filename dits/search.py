"""Search: a sentence in, ranked videos out, with what each score means."""

import os
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dits.checkpoint import find_weights, load_checkpoint, prepared_weights
from dits.corpus import Clip, Corpus, read_clips
from dits.datasets import DATASETS, LoadedDataset, load_dataset, load_table
from dits.demo import build_demo, demo_folder
from dits.embeddings import CorpusEmbeddings, corpus_embeddings
from dits.encoders import BUNDLED, OpenClipEncoder, load_encoder
from dits.errors import CheckpointError, InputError
from dits.gallery import Derived, Gallery
from dits.index.location import is_index
from dits.model import SEARCH_METHODS, ModelConfig, RetrievalModel
from dits.ranking import ranks_at, top_of

MAX_QUERY_CHARACTERS = 20_000
MAX_RESULTS = 100

_UNREADABLE = "The encoder has no words for most of this query: the ranking means little."

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class FrameWeight:
    """A sampled frame: when it is shown, in seconds, and how much pooling counts it (the weights sum to 1)."""

    time: float
    weight: float


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: place in the ranking, from 1.
        clip: the video.
        score: cosine between the aligned text and the pooled video.
        deviations: by how many standard deviations the score lies above the mean of this query's scores on the whole
            gallery.
        frames: the sampled frames with their weights.
        best_moment: when the frame is shown that matches best, in seconds: the one that X-Pool counts most, or the one
            nearest to the text under mean pooling, which counts all the same.
        ranks: the clip's rank under every loaded method.
    """

    rank: int
    clip: Clip
    score: float
    deviations: float
    frames: tuple[FrameWeight, ...]
    best_moment: float
    ranks: dict[str, int]


@dataclass(frozen=True)
class SearchResult:
    """A ranking.

    Attributes:
        query: the text that was encoded.
        encoder: id of the encoder.
        method: what ranked.
        hits: the best videos, best first.
        spread: lowest, mean and highest of this query's scores on the whole gallery.
        notice: one sentence on what became of the query, where not all of it was read.
        exact: whether all videos were scored. Where only candidates were, `spread` and the hits' deviations are those
            of a sample of the gallery, and ranks count among the candidates.
    """

    query: str
    encoder: str
    method: str
    hits: tuple[Hit, ...]
    spread: tuple[float, float, float]
    notice: str | None = None
    exact: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "query": self.query,
            "encoder": self.encoder,
            "method": self.method,
            "notice": self.notice,
            "exact": self.exact,
            "results": [
                {
                    "rank": hit.rank,
                    "id": hit.clip.id,
                    "score": hit.score,
                    "deviations": hit.deviations,
                    "path": str(hit.clip.path),
                    "start": hit.clip.start,
                    "end": hit.clip.end,
                    "best_moment": hit.best_moment,
                    "frames": [{"time": frame.time, "weight": frame.weight} for frame in hit.frames],
                    "ranks": hit.ranks,
                }
                for hit in self.hits
            ],
        }


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

    `missing` names the methods that have no weights for the encoder, which `dits.prepare` makes; where there are some
    that cannot be used, with a sentence why.
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
    ) -> None:
        """`candidates` says which videos are scored for a text; by default, and where it gives None, all are. It gets
        the different embeddings (Q, d) that stand for the text under the methods.
        """
        self.corpus = corpus
        self.encoder = encoder
        self.embeddings = embeddings
        self.methods = methods
        self.notices = tuple(notices)
        self.missing = dict(missing or {})
        self._derive, self._candidates = derive, candidates
        self._lock = threading.Lock()  # one query at a time has all cores; more would only slow each other

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
        if method in self.missing:
            raise InputError(
                f"The method '{method}' has no weights for the encoder {self.encoder.id} yet: press Prepare on the "
                f"page, run `python -m dits prepare`, or choose {' or '.join(self.methods)}."
            )
        if method not in self.methods:
            raise InputError(f"There is no method '{method}' here: choose one of {', '.join(self.methods)}.")

    def with_prepared(self) -> "SearchEngine":
        """The same engine with the methods that were missing and have weights now.

        Raises:
            CheckpointError: one still has none, or they cannot be used.
        """
        frames, derive = self.embeddings.frames, self._derive
        loaded = {name: load_method(name, self.encoder, frames, derive=derive) for name in self.missing}
        methods = {**self.methods, **loaded}
        return SearchEngine(
            self.corpus, self.encoder, self.embeddings, methods, self.notices, None, derive, self._candidates
        )

    def search_all(self, text: str, top: int = 5) -> dict[str, SearchResult]:
        """Ranks the corpus for a sentence by every loaded method.

        Raises:
            InputError: the query is empty, or `top` is out of range.
        """
        query, notice = self._readable(text)
        if not 1 <= top <= MAX_RESULTS:
            raise InputError(f"The number of results must be from 1 to {MAX_RESULTS}, not {top}.")
        with self._lock:
            embedding = self.encoder.encode_text([query])
            aligned = self._aligned(embedding)
            standing = torch.cat(list(aligned.values()) or [embedding]).unique(dim=0)
            some = self._candidates(standing) if self._candidates else None
            galleries = {
                name: loaded.gallery if some is None else loaded.gallery.select(some.rows)
                for name, loaded in self.methods.items()
            }
            scores = {name: gallery.scores(embedding, aligned.get(name))[0] for name, gallery in galleries.items()}
            best = {name: top_of([values[None]], top).rows[0] for name, values in scores.items()}
            weights = {name: gallery.frame_weights(embedding[0], best[name]) for name, gallery in galleries.items()}
            frames = {name: gallery.best_frames(embedding[0], best[name]) for name, gallery in galleries.items()}
            ranks = {
                name: {other: ranks_at(values, rows).tolist() for other, values in scores.items()}
                for name, rows in best.items()
            }
        return {
            name: SearchResult(
                query=query,
                encoder=self.encoder.id,
                method=name,
                hits=self._hits(values, best[name], ranks[name], weights[name], frames[name], some),
                spread=(float(of_all.min()), float(of_all.mean()), float(of_all.max())),
                notice=notice,
                exact=some is None,
            )
            for name, values in scores.items()
            for of_all in (_of_all(values, some),)
        }

    def readable(self, text: str) -> str:
        """The query as it is encoded: without control characters and stray spaces.

        Raises:
            InputError: the query is empty.
        """
        return self._readable(text)[0]

    def _readable(self, text: str) -> tuple[str, str | None]:
        """The query without control characters and stray spaces, and a notice where a part is not read."""
        kept = text.strip()[:MAX_QUERY_CHARACTERS]
        query = " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in kept).split())
        if not any(unicodedata.category(c) != "Cf" and not c.isspace() for c in query):
            raise InputError("The query is empty: describe in a sentence what the video shows.")
        cut = self.encoder.cut_text(query)
        if cut is None:
            return query, _UNREADABLE if self.encoder.unknown_share(query) >= 0.5 else None
        return query, (
            f"The query is longer than the encoder reads: it was cut after {len(cut.split())} words, "
            f"'{cut[-40:].strip()}'."
        )

    @torch.inference_mode()
    def _aligned(self, embedding: Tensor) -> dict[str, Tensor]:
        """What stands for a text (1, d) under each method that has such an embedding (1, d)."""
        models = {name: loaded.model for name, loaded in self.methods.items() if not loaded.model.alignment.pairwise}
        return {name: model.align(embedding.to(model.logit_scale.device)).cpu() for name, model in models.items()}

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
        times = self.embeddings.times
        rows = best if some is None else some.rows[best]
        return tuple(
            Hit(
                rank=rank,
                clip=self.corpus.clips[row],
                score=float(scores[place]),
                deviations=float((scores[place] - mean) / deviation),
                frames=tuple(
                    FrameWeight(round(float(t), 3), float(w)) for t, w in zip(times[row], of_frames, strict=True)
                ),
                best_moment=round(float(times[row, moment]), 3),
                ranks={name: of_hits[rank - 1] for name, of_hits in ranks.items()},
            )
            for rank, (row, place, of_frames, moment) in enumerate(
                zip(rows.tolist(), best.tolist(), weights, frames, strict=True), start=1
            )
        )


def _of_all(scores: Tensor, some: Candidates | None) -> Tensor:
    """Scores that stand for those of all videos."""
    return scores if some is None else scores[some.sample]


def open_corpus(
    name: str = "demo",
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    strict: bool = False,
) -> Corpus:
    """A corpus by its name.

    Args:
        name: "demo", which is built where it is not yet; a folder with captions.csv and its clips as `<clip>.mp4`;
            "NAME:FOLDER" for a benchmark (see `dits.datasets.DATASETS`); or a CSV file (see
            `dits.datasets.load_table`).
        progress: told how far the demo corpus is built.
        notice: told in sentences what is missing or peculiar in a benchmark or a CSV file.
        strict: raise where a video is missing, instead of telling.

    Raises:
        InputError: there is no such corpus, or its captions cannot be read.
        CorpusError: the corpus is inconsistent.
        StorageError: the cache folder cannot be written.
    """
    if name == "demo":
        return build_demo(lambda done, total: _tell(progress, "Preparing the demo clips", done, total))
    if is_index(name):
        raise InputError(
            f"{name} is an index: its videos have no captions. Search it with `search` or the app; to train or "
            "evaluate, name a CSV file of videos and captions."
        )
    loaded = _dataset(name, strict)
    if loaded:
        if notice:
            for sentence in loaded.notices:
                notice(sentence)
        return loaded.corpus
    folder = corpus_folder(name)
    if not os.path.isfile(folder / "captions.csv"):
        raise InputError(
            f"There is no corpus '{name}': use 'demo', a folder with a captions.csv, a CSV file, or NAME:FOLDER for "
            "one of the benchmarks that python -m dits data list names."
        )
    return Corpus(folder.name, read_clips(folder / "captions.csv", folder))


def corpus_folder(name: str = "demo") -> Path:
    """The folder that a corpus's videos lie in, or will lie in once it is built.

    Raises:
        InputError: the name is no path.
    """
    try:
        return demo_folder() if name == "demo" else Path(name).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"There is no corpus '{name[:200]}': use 'demo', or a folder with a captions.csv.") from error


def _dataset(name: str, strict: bool) -> LoadedDataset | None:
    dataset, colon, root = name.partition(":")
    if colon and dataset in DATASETS:
        return load_dataset(dataset, _path(root), strict=strict)
    if name.lower().endswith(".csv") and not os.path.isdir(name):
        return load_table(_path(name), strict=strict)
    return None


def _path(name: str) -> Path:
    """A path as the user gave it; links stay, so that a table linked into a folder speaks of that folder."""
    try:
        os.stat(path := Path(name).expanduser().absolute())
        return path
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"There is no file or folder '{name[:200]}'.") from error


def load_engine(
    corpus: str = "demo",
    encoder: str = BUNDLED,
    methods: Sequence[str] | None = None,
    weights: Path | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    allow_missing: bool = False,
) -> SearchEngine:
    """Loads everything that search needs.

    Args:
        corpus: see `open_corpus`; or an index of one's own videos: its folder or URL, or "index", the default one.
        encoder: see `dits.encoders.load_encoder`.
        methods: which of "mean", "xpool" and "dits" to load; by default all, or those that `weights` holds, where it
            holds any (an encoder that was tuned with one method has no other), and mean pooling.
        weights: a folder with <method>.safetensors; by default see `dits.checkpoint.find_weights`.
        progress: told what is being done.
        strict: see `open_corpus`.
        allow_missing: leave out the methods that no weights were named, shipped or prepared for, instead of raising.
            Prepared weights that cannot be used count as missing.

    Raises:
        DitsError: anything is missing, damaged, or made for another encoder; the message says what.
    """
    notices: list[str] = []
    derive: Derive | None = None
    candidates: FindCandidates | None = None
    if is_index(corpus):
        from dits.index.engine import indexed_videos

        _tell(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder)
        opened, embeddings, derive, candidates = indexed_videos(corpus, loaded_encoder, progress, notices.append)
    else:
        opened = open_corpus(corpus, progress, notices.append, strict)
        _tell(progress, "Loading the encoder", 0, 1)
        loaded_encoder = load_encoder(encoder)
        embeddings = corpus_embeddings(
            opened,
            loaded_encoder,
            lambda done, total: _tell(progress, "Embedding the clips", done, total),
            notices.append,
        )
    _tell(progress, "Loading the weights", 0, 1)
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
    return SearchEngine(opened, loaded_encoder, embeddings, loaded, notices, missing, derive, candidates)


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
    path = weights_of(method, encoder.id, weights)
    checkpoint = load_checkpoint(path, encoder, method) if path else None
    model = checkpoint.model if checkpoint else RetrievalModel(ModelConfig(method=method)).eval()
    model = model.to(encoder.device)
    sha256 = checkpoint.sha256 if checkpoint else None
    derived = derive(f"{method}-{(sha256 or 'none')[:16]}", model) if derive else None
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


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)

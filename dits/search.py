"""Search: a sentence in, ranked videos out, with what each score means."""

import os
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dits.checkpoint import bundled_weights, load_checkpoint
from dits.corpus import Clip, Corpus, read_clips
from dits.demo import build_demo, demo_folder
from dits.embeddings import CorpusEmbeddings, corpus_embeddings
from dits.encoders import BUNDLED, OpenClipEncoder, load_encoder
from dits.errors import InputError
from dits.model import METHODS, Gallery, ModelConfig, RetrievalModel

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
    """

    query: str
    encoder: str
    method: str
    hits: tuple[Hit, ...]
    spread: tuple[float, float, float]
    notice: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "query": self.query,
            "encoder": self.encoder,
            "method": self.method,
            "notice": self.notice,
            "results": [
                {
                    "rank": hit.rank,
                    "id": hit.clip.id,
                    "score": hit.score,
                    "deviations": hit.deviations,
                    "path": str(hit.clip.path),
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


class SearchEngine:
    """A corpus, an encoder and trained methods, loaded once and safe to use from several threads."""

    def __init__(
        self,
        corpus: Corpus,
        encoder: OpenClipEncoder,
        embeddings: CorpusEmbeddings,
        methods: dict[str, LoadedMethod],
        notices: Sequence[str] = (),
    ) -> None:
        self.corpus = corpus
        self.encoder = encoder
        self.embeddings = embeddings
        self.methods = methods
        self.notices = tuple(notices)
        self._lock = threading.Lock()  # one query at a time has all cores; more would only slow each other

    def search(self, text: str, method: str = "dits", top: int = 5) -> SearchResult:
        """Ranks the corpus for a sentence by one method.

        Raises:
            InputError: the query is empty, the method is not loaded, or `top` is out of range.
        """
        if method not in self.methods:
            raise InputError(f"There is no method '{method}' here: choose one of {', '.join(self.methods)}.")
        return self.search_all(text, top)[method]

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
            scores = {name: loaded.gallery.scores(embedding)[0] for name, loaded in self.methods.items()}
            weights = {name: loaded.gallery.frame_weights(embedding[0]) for name, loaded in self.methods.items()}
            best = {name: loaded.gallery.best_frames(embedding[0]) for name, loaded in self.methods.items()}
        return {
            name: SearchResult(
                query=query,
                encoder=self.encoder.id,
                method=name,
                hits=self._hits(scores, name, min(top, len(self.corpus)), weights[name], best[name]),
                spread=(float(values.min()), float(values.mean()), float(values.max())),
                notice=notice,
            )
            for name, values in scores.items()
        }

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

    def _hits(self, scores: dict[str, Tensor], method: str, top: int, weights: Tensor, best: Tensor) -> tuple[Hit, ...]:
        orders = {name: torch.argsort(values, descending=True, stable=True) for name, values in scores.items()}
        ranks = {name: torch.argsort(order) + 1 for name, order in orders.items()}
        own = scores[method]
        mean, deviation = own.mean(), own.std().clamp_min(1e-9) if len(own) > 1 else torch.tensor(1.0)
        times = self.embeddings.times
        return tuple(
            Hit(
                rank=rank,
                clip=self.corpus.clips[index],
                score=float(own[index]),
                deviations=float((own[index] - mean) / deviation),
                frames=tuple(
                    FrameWeight(round(float(t), 3), float(w)) for t, w in zip(times[index], weights[index], strict=True)
                ),
                best_moment=round(float(times[index, best[index]]), 3),
                ranks={name: int(values[index]) for name, values in ranks.items()},
            )
            for rank, index in enumerate(orders[method][:top].tolist(), start=1)
        )


def open_corpus(name: str = "demo", progress: Progress | None = None) -> Corpus:
    """The demo corpus, built where it is not yet, or a folder with captions.csv and its clips as `<clip>.mp4`.

    Raises:
        InputError: there is no such folder, or its captions.csv cannot be read.
        CorpusError: the corpus is inconsistent.
        StorageError: the cache folder cannot be written.
    """
    if name == "demo":
        return build_demo(lambda done, total: _tell(progress, "Preparing the demo clips", done, total))
    folder = corpus_folder(name)
    if not os.path.isfile(folder / "captions.csv"):
        raise InputError(f"There is no corpus '{name}': use 'demo', or a folder with a captions.csv.")
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


def load_engine(
    corpus: str = "demo",
    encoder: str = BUNDLED,
    methods: Sequence[str] | None = None,
    weights: Path | None = None,
    progress: Progress | None = None,
) -> SearchEngine:
    """Loads everything that search needs.

    Args:
        corpus: see `open_corpus`.
        encoder: see `dits.encoders.load_encoder`.
        methods: which of "mean", "xpool" and "dits" to load; by default all, or those that `weights` holds, where it
            holds any (an encoder that was tuned with one method has no other), and mean pooling.
        weights: a folder with <method>.safetensors; by default the shipped weights for the encoder.
        progress: told what is being done.

    Raises:
        DitsError: anything is missing, damaged, or made for another encoder; the message says what.
    """
    opened = open_corpus(corpus, progress)
    _tell(progress, "Loading the encoder", 0, 1)
    loaded_encoder = load_encoder(encoder)
    notices: list[str] = []
    embeddings = corpus_embeddings(
        opened,
        loaded_encoder,
        lambda done, total: _tell(progress, "Embedding the clips", done, total),
        notices.append,
    )
    _tell(progress, "Loading the weights", 0, 1)
    names = methods or _methods_of(weights)
    loaded = {name: load_method(name, loaded_encoder, embeddings.frames, weights) for name in names}
    return SearchEngine(opened, loaded_encoder, embeddings, loaded, notices)


def _methods_of(weights: Path | None) -> Sequence[str]:
    held = [name for name in METHODS if weights and (weights / f"{name}.safetensors").is_file()]
    return tuple(dict.fromkeys(("mean", *held))) if held else METHODS


def load_method(method: str, encoder: OpenClipEncoder, frames: Tensor, weights: Path | None = None) -> LoadedMethod:
    """A method with its weights, and the videos (V, F, d) prepared for it, on the encoder's device.

    Raises:
        InputError: there is no such method.
        CheckpointError: the weights are missing, damaged, or made for another encoder.
    """
    config = ModelConfig(method=method)
    if method == "mean":
        model = RetrievalModel(config).eval()
        return LoadedMethod(model, model.to(encoder.device).gallery(frames), None)
    path = weights / f"{method}.safetensors" if weights else bundled_weights(method, encoder.id)
    checkpoint = load_checkpoint(path, encoder, method)
    return LoadedMethod(checkpoint.model, checkpoint.model.to(encoder.device).gallery(frames), checkpoint.sha256)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)

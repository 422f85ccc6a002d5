"""Analyses of the corpus for the tabs, computed once for all visitors and cached."""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.captions import caption_embeddings
from analysis.figures.embedding_map import MapLabels
from analysis.figures.map_panels import MAX_LANDMARKS, DrawnFlow, drawn_flow, trusted_map
from analysis.flow import Flow, flow_of, with_sampling
from analysis.measures.analysis import Analysis, ReportConfig, analyse
from analysis.projections.projection import Cloud, Map
from analysis.projections.trust import Trust
from dits.common.errors import require
from dits.corpora.corpus import Corpus, Query
from dits.corpora.demo import demo_corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.evaluation.metrics import match_queries
from dits.evaluation.report import check_queries_in_gallery, evaluation_report
from dits.models.checkpoint import find_weights, load_checkpoint
from dits.models.pooling import PoolingConfig, mean_pool
from dits.models.retrieval import METHODS, SEARCH_METHODS, ModelConfig, RetrievalModel
from dits.scoring.gallery import Gallery, build_gallery
from dits.search.engine import SearchEngine
from dits.search.query import MAX_RESULTS
from ui.runtime.cache import Cache
from ui.services.media import CORPUS_MEDIA, Media

RESAMPLES = 300
"""Bootstrap resamples: enough for the two digits that the table shows."""

CACHED_QUERIES, CACHED_PAGES, CACHED_SUBSETS = 64, 16, 4
"""Cache sizes: trajectories of queries, rendered tabs (1 to 3 MB each), subsets of a corpus too large to draw."""

MAX_SCORES = 20_000_000
"""Maximum number of scores (queries times clips) of an evaluation: 80 MB of float32."""


class Analyst:
    """The flows of an engine's corpus and their measures. Thread-safe.

    Attributes:
        engine: the engine, with its corpus and methods.
        media: the addresses of the corpus's clips.
        key: unique number of the analyst.
        pages: cache of rendered tabs by their settings.
    """

    def __init__(self, engine: SearchEngine, media: Media = CORPUS_MEDIA, maps: Path | None = None) -> None:
        """`maps` is the folder of cached maps; by default in the cache folder."""
        self.engine, self.media, self._maps = engine, media, maps
        self.key = next(_KEYS)
        self.pages = Cache(CACHED_PAGES)
        self._cache = Cache()
        self._queries = Cache(CACHED_QUERIES)
        self._subsets = Cache(CACHED_SUBSETS)

    @property
    def methods(self) -> dict[str, str]:
        """Titles of the alignment methods by name: loaded methods, further weights, and the mean shift.

        Further weights are other files in the folder of the weights, such as those of a baseline, or of a method with
        another loss. The method of NAME.safetensors is called NAME.
        """
        return self._cache("methods", self._methods)

    @property
    def splits(self) -> list[str]:
        """The splits with at least two videos; none if the videos have no captions."""
        if not self.has_captions:
            return []
        counts = {split: sum(clip.split == split for clip in self.engine.corpus) for split in _SPLITS}
        return [split for split, count in counts.items() if count > 1]

    @property
    def has_captions(self) -> bool:
        """Whether the clips have captions; a visitor's own videos have none."""
        return bool(self.engine.corpus.clips[0].captions)

    def for_query(self, query: str) -> "Analyst":
        """Return this analyst, or that of a subset around the query if the corpus has too many clips to draw."""
        ids, query = self.engine.embeddings.ids, self.engine.clean_query(query)
        return self if len(ids) <= MAX_LANDMARKS else self._subsets(query, lambda: self._subset(query))

    def model(self, method: str) -> RetrievalModel:
        """Return the model of a method.

        Raises:
            InputError: the method has no weights here.
        """
        validated_choice(method, self.methods, "method")
        return self._cache(("model", method), lambda: self._model(method))

    def flow(self, split: str, method: str, side: str = "mean") -> Flow:
        """Return the trajectories of a split's captions under a method."""
        return self._cache(("flow", split, method, side), lambda: self._flow(split, method, side))

    def analysis(self, split: str, method: str, side: str = "mean") -> Analysis:
        """Return all measures of that flow."""
        measure = lambda: analyse([self.flow(split, method, side)], ReportConfig(resamples=RESAMPLES))  # noqa: E731
        return self._cache(("analysis", split, method, side), measure)

    def drawn_flow(self, split: str, method: str, paths: int = 16) -> DrawnFlow:
        """Return the content of a map of that flow."""
        draw = lambda: drawn_flow(self.flow(split, method), paths, thumbnails=self.thumbnails(split))  # noqa: E731
        return self._cache(("drawn", split, method, paths), draw)

    def landmarks(self, method: str) -> DrawnFlow:
        """Return the content of a map of the whole corpus: all clips, their first captions, and some trajectories.

        For clips without captions, the first captions of the demo corpus are shown: they mark the region of the texts.
        """
        return self._cache(("landmarks", method), lambda: self._landmarks(method))

    def map(self, key: Hashable, drawn: DrawnFlow, kind: str, dimensions: int) -> tuple[Map, Trust]:
        """Return a map of `drawn` and its trust measures; `key` identifies `drawn` in the cache."""
        return self._cache(
            ("map", key, kind, dimensions), lambda: trusted_map(drawn.cloud, kind, dimensions, folder=self._maps)
        )

    def thumbnails(self, split: str) -> list[str]:
        """Return the address of a picture of each clip; an empty list if a clip has none."""
        addresses = [self.media.strip(clip) or self.media.picture(clip) for clip in self.clips(split)]
        return addresses if all(addresses) else []

    def clips(self, split: str) -> Corpus:
        """Return the clips of a split."""
        return self.engine.corpus.split(split)

    def query_flow(
        self, query: str, method: str, steps: int | None = None, noise: float | None = None, seed: int | None = None
    ) -> Flow:
        """Return the trajectory of a query among all clips; its video is the first-ranked one of the last step.

        Raises:
            InputError: the method has no such setting.
        """
        query = self.engine.clean_query(query)
        key = (query, method, steps, noise, seed)
        return self._queries(key, lambda: self._query_flow(query, method, steps, noise, seed))

    def evaluation(self, queries: Sequence[Query], method: str, split: str = "all") -> dict[str, Any]:
        """Evaluate a method on queries and their clips; see `dits.evaluation.report`.

        Args:
            split: the gallery: "all", or one of `splits`.

        Raises:
            InputError: a query's clip is not in the gallery, there would be more than MAX_SCORES scores, or the method
                aligns each pair of text and clip separately.
        """
        validated_choice(split, ("all", *self.splits), "split")
        ids, gallery = self._cache(("gallery", split, method), lambda: self._gallery(split, method))
        require(
            len(queries) * len(ids) <= MAX_SCORES,
            f"{len(queries)} queries and {len(ids)} clips are too many here: send fewer queries, or use "
            "`python -m dits evaluate --queries FILE.csv`.",
        )
        check_queries_in_gallery(queries, ids)
        texts = self.engine.encoder.encode_text([query.caption for query in queries])
        scores = gallery.scores(texts, self.align(texts, method))
        return {"videos": len(ids), **evaluation_report(scores, queries, ids)}

    @torch.inference_mode()
    def align(self, texts: torch.Tensor, method: str) -> torch.Tensor:
        """Return the aligned embeddings v_0 (N, d) of text embeddings (N, d).

        Raises:
            InputError: the method aligns each pair of text and clip separately.
        """
        return self.model(method).align(texts)

    def is_dits(self, method: str) -> bool:
        """Whether the method is DITS, so that T' and the noise scale can be chosen."""
        return self.model(method).config.method == "dits"

    def _flow(self, split: str, method: str, side: str) -> Flow:
        clips = self.clips(split)
        matched = match_queries(clips.queries(), clips.ids)
        captions = tuple(query.caption for query in matched.queries)
        texts = caption_embeddings(self.engine.encoder, captions)
        return self._flow_of(self.model(method), method, texts, split, captions, matched.targets, side)

    def _flow_of(
        self,
        model: RetrievalModel,
        method: str,
        texts: torch.Tensor,
        split: str,
        captions: tuple[str, ...],
        video_of: np.ndarray,
        side: str = "mean",
    ) -> Flow:
        ids = self.clips(split).ids
        return flow_of(
            model, texts, self._embeddings(split).frames, video_of,
            name=self.engine.corpus.name, split=split, method=method, captions=captions, video_ids=tuple(ids),
            video_side=side,
        ).starting_at_text()  # fmt: skip

    def _query_flow(self, query: str, method: str, steps: int | None, noise: float | None, seed: int | None) -> Flow:
        model = with_sampling(self.model(method), steps, noise, seed)
        text = self.engine.encoder.encode_text([query]).cpu()
        flow = self._flow_of(model, method, text, "all", (query,), np.zeros(1, dtype=int))
        return flow.with_videos(flow.scores_at(len(flow.points) - 1).argmax(axis=1))

    def _landmarks(self, method: str) -> DrawnFlow:
        if not self.has_captions:
            return self._landmarks_without_captions(method)
        clips = self.clips("all")
        captions = tuple(clip.captions[0] for clip in clips)
        texts = caption_embeddings(self.engine.encoder, captions)
        flow = self._flow_of(self.model(method), method, texts, "all", captions, np.arange(len(clips)))
        return drawn_flow(flow, _LANDMARK_PATHS, thumbnails=self.thumbnails("all"))

    @torch.inference_mode()
    def _landmarks_without_captions(self, method: str) -> DrawnFlow:
        clips, model = self.clips("all"), self.model(method)
        require(len(clips) > 1, "A map needs at least two clips, and there is one: add another video.")
        captions = tuple(clip.captions[0] for clip in demo_corpus())
        texts = caption_embeddings(self.engine.encoder, captions)
        cloud = Cloud(
            texts=texts.numpy(),
            videos=mean_pool(self._embeddings("all").frames).numpy(),
            paths=model.trajectory(texts[:1])[:, :0].numpy(),  # no trajectories, but the number of steps of the query's
        )
        labels = MapLabels(
            texts=captions,
            videos=tuple(clip.title for clip in clips),
            video_of=np.full(len(captions), -1),
            thumbnails=tuple(self.thumbnails("all")),
        )
        return DrawnFlow(cloud, labels)

    def _gallery(self, split: str, method: str) -> tuple[Sequence[str], Gallery]:
        """Return the ids and the gallery of a split's clips."""
        engine, model = self.engine, self.model(method)
        loaded, embeddings = engine.methods.get(method), engine.embeddings
        gallery = loaded.gallery if loaded else build_gallery(model, embeddings.frames)
        if split == "all":
            return embeddings.ids, gallery
        ids, rows = self.clips(split).ids, {name: row for row, name in enumerate(embeddings.ids)}
        return ids, gallery.select(torch.tensor([rows[name] for name in ids]))

    def _embeddings(self, split: str) -> CorpusEmbeddings:
        return self.engine.embeddings.select(self.clips(split).ids)

    def _subset(self, query: str) -> "Analyst":
        """The analyst of the top results of all methods and of random further clips."""
        engine = self.engine
        row_of = {name: row for row, name in enumerate(engine.embeddings.ids)}
        hits = [row_of[hit.clip.id] for r in engine.search_all(query, MAX_RESULTS).values() for hit in r.hits]
        others = np.random.default_rng(0).choice(len(row_of), MAX_LANDMARKS, replace=False).tolist()
        rows = sorted(list(dict.fromkeys([*hits, *others]))[:MAX_LANDMARKS])
        subset = Corpus(engine.corpus.name, tuple(engine.corpus.clips[row] for row in rows))
        return Analyst(engine.with_corpus(subset, engine.embeddings.select(subset.ids)), self.media, self._maps)

    def _methods(self) -> dict[str, str]:
        folder = find_weights("dits", self.engine.encoder.id).parent
        names = [path.stem for path in sorted(folder.glob("*.safetensors"))]
        further = [name for name in names if name not in SEARCH_METHODS and name.partition("-")[0] in METHODS]
        loaded = [name for name in ("dits", "xpool", "mean") if name in self.engine.methods]
        shift = ["shift"] if self.splits else []  # fitted on pairs of captions and clips
        return {name: _title(name) for name in (*loaded, *shift, *further)}

    def _model(self, method: str) -> RetrievalModel:
        if method == "shift":
            return self._mean_shift()
        if method in self.engine.methods:
            return _on_cpu(self.engine.methods[method].model)
        return load_checkpoint(find_weights(method, self.engine.encoder.id), self.engine.encoder).model

    def _mean_shift(self) -> RetrievalModel:
        """Shift by the mean gap of the training split; ranked by mean pooling."""
        flow = self.flow("train" if "train" in self.splits else self.splits[0], "mean")
        model = RetrievalModel(ModelConfig("shift", PoolingConfig(kind="mean", dim=flow.points.shape[-1])))
        model.alignment.fit(flow.points[0], flow.own_videos)
        return model.eval()


def validated_choice(value: object, choices: Iterable[str], what: str) -> str:
    """Return a value that must be one of the choices; `what` names it in the message.

    Raises:
        InputError: it is not.
    """
    names = list(choices)
    require(
        isinstance(value, str) and value in names,
        f"There is no {what} '{str(value)[:40]}' here: choose one of {', '.join(names)}.",
    )
    return str(value)


_KEYS = itertools.count()
_LANDMARK_PATHS = 12
_SPLITS = ("validation", "test", "train")


def _title(name: str) -> str:
    """The title of a method or of further weights: "DITS, l2" for dits-l2."""
    method, _, kind = name.partition("-")
    return f"{METHODS[method].title}, {kind}" if kind else METHODS[method].title


def _on_cpu(model: RetrievalModel) -> RetrievalModel:
    """Return the model itself if it is on the CPU, where the analysis runs, else a copy on the CPU."""
    if model.logit_scale.device.type == "cpu":
        return model
    copy = RetrievalModel(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()

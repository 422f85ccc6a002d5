"""What the analysis tabs ask of the corpus: computed once for all visitors, in memory and in the cache."""

import itertools
import threading
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
from dits.evaluation.report import check_described, evaluation_report
from dits.models.checkpoint import find_weights, load_checkpoint
from dits.models.pooling import PoolingConfig, mean_pool
from dits.models.retrieval import METHODS, SEARCH_METHODS, ModelConfig, RetrievalModel
from dits.scoring.gallery import Gallery, build_gallery
from dits.search.engine import SearchEngine
from dits.search.query import MAX_RESULTS
from ui.runtime.cache import Cache
from ui.services.engine_loading import EngineLoader
from ui.services.media import CORPUS_MEDIA, Media

RESAMPLES = 300
"""Of the bootstrap: enough for the two digits that the table shows."""

QUERIES, PAGES = 64, 16
"""So many sentences' ways, and so many finished pages of a tab (of 1 to 3 MB), are kept for whoever asks again."""

MAX_SCORES = 20_000_000
"""Of sentences and clips that are evaluated at once: as many float32 take 80 MB."""

PARTS = 4
"""Of a corpus that is too large to draw, for so many sentences."""


class Analyst:
    """The flows of an engine's corpus and what is measured on them. Safe to use from several threads.

    Attributes:
        engine: whose corpus and methods these are.
        media: where the corpus's clips are.
        key: another one for every analyst.
        pages: what the tabs show, by what was asked for.
    """

    def __init__(self, engine: SearchEngine, media: Media = CORPUS_MEDIA, maps: Path | None = None) -> None:
        """`maps` is a folder to keep maps in, by default one of the cache."""
        self.engine, self.media, self._maps = engine, media, maps
        self.key = next(_KEYS)
        self.pages = Cache(PAGES)
        self._once = Cache()
        self._queries = Cache(QUERIES)
        self._parts = Cache(PARTS)

    @property
    def methods(self) -> dict[str, str]:
        """The titles of the ways of moving a text, by name: methods loaded, further weights, and the mean shift.

        Further weights are whatever else lies beside the methods' own, such as a baseline's, or a method's with another
        loss: NAME.safetensors is called NAME.
        """
        return self._once("methods", self._methods)

    @property
    def splits(self) -> list[str]:
        """The splits that hold enough videos with captions to analyse; none of one's own videos."""
        if not self.has_captions:
            return []
        counts = {split: sum(clip.split == split for clip in self.engine.corpus) for split in _SPLITS}
        return [split for split, count in counts.items() if count > 1]

    @property
    def has_captions(self) -> bool:
        """Whether sentences belong to the clips; to one's own videos none do."""
        return bool(self.engine.corpus.clips[0].captions)

    def over(self, query: str) -> "Analyst":
        """The analyst of the clips that are looked at for a sentence: of all, but where there are too many to draw."""
        ids, sentence = self.engine.embeddings.ids, self.engine.readable(query)
        return self if len(ids) <= MAX_LANDMARKS else self._parts(sentence, lambda: self._over(sentence))

    def model(self, method: str) -> RetrievalModel:
        """A method's model.

        Raises:
            InputError: it has no weights here.
        """
        validated_choice(method, self.methods, "method")
        return self._once(("model", method), lambda: self._model(method))

    def flow(self, split: str, method: str, side: str = "mean") -> Flow:
        """The captions of a split, on their way under a method."""
        return self._once(("flow", split, method, side), lambda: self._flow(split, method, side))

    def analysis(self, split: str, method: str, side: str = "mean") -> Analysis:
        """Everything that is measured on that flow."""
        measure = lambda: analyse([self.flow(split, method, side)], ReportConfig(resamples=RESAMPLES))  # noqa: E731
        return self._once(("analysis", split, method, side), measure)

    def drawn(self, split: str, method: str, paths: int = 16) -> DrawnFlow:
        """What a map shows of that flow."""
        draw = lambda: drawn_flow(self.flow(split, method), paths, thumbnails=self.thumbnails(split))  # noqa: E731
        return self._once(("drawn", split, method, paths), draw)

    def landmarks(self, method: str) -> DrawnFlow:
        """What a map shows of the whole corpus: every clip, its first caption, and the ways of some of those.

        Clips without captions stand beside the first captions of the demo corpus: these say where sentences lie.
        """
        return self._once(("landmarks", method), lambda: self._landmarks(method))

    def map(self, key: Hashable, drawn: DrawnFlow, kind: str, dimensions: int) -> tuple[Map, Trust]:
        """A map of what is drawn, which `key` names, and how far to trust it."""
        return self._once(
            ("map", key, kind, dimensions), lambda: trusted_map(drawn.cloud, kind, dimensions, folder=self._maps)
        )

    def thumbnails(self, split: str) -> list[str]:
        """The address of a picture of each clip; empty where the corpus has none."""
        addresses = [self.media.strip(clip) or self.media.picture(clip) for clip in self.part(split)]
        return addresses if all(addresses) else []

    def part(self, split: str) -> Corpus:
        """The clips of a split."""
        return self.engine.corpus.split(split)

    def query_flow(
        self,
        query: str,
        method: str,
        steps: int | None = None,
        noise: float | None = None,
        seed: int | None = None,
    ) -> Flow:
        """One sentence on its way over all clips; its video is the one that comes first at the end.

        Raises:
            InputError: the method has no such setting.
        """
        sentence = self.engine.readable(query)
        key = (sentence, method, steps, noise, seed)
        return self._queries(key, lambda: self._query_flow(sentence, method, steps, noise, seed))

    def evaluation(self, queries: Sequence[Query], method: str, split: str = "all") -> dict[str, Any]:
        """How a method ranks the clips that sentences describe; see `dits.evaluation.report`.

        Args:
            split: the clips that are ranked; "all", or one of `splits`.

        Raises:
            InputError: a query's clip is not among them, there would be more than MAX_SCORES scores, or the method
                moves every pair of text and clip.
        """
        validated_choice(split, ("all", *self.splits), "split")
        ids, gallery = self._once(("gallery", split, method), lambda: self._gallery(split, method))
        require(
            len(queries) * len(ids) <= MAX_SCORES,
            f"{len(queries)} sentences among {len(ids)} clips are too many here: send fewer, or evaluate with "
            "`python -m dits evaluate --queries FILE.csv`.",
        )
        check_described(queries, ids)
        texts = self.engine.encoder.encode_text([query.caption for query in queries])
        scores = gallery.scores(texts, self.aligned(texts, method))
        return {"videos": len(ids), **evaluation_report(scores, queries, ids)}

    @torch.inference_mode()
    def aligned(self, texts: torch.Tensor, method: str) -> torch.Tensor:
        """Where a method moves the embeddings of texts (N, d): v_0 (N, d).

        Raises:
            InputError: it moves every pair of text and clip.
        """
        return self.model(method).align(texts)

    def is_dits(self, method: str) -> bool:
        """Whether T' and noise can be chosen."""
        return self.model(method).config.method == "dits"

    def _flow(self, split: str, method: str, side: str) -> Flow:
        part = self.part(split)
        matched = match_queries(part.queries(), part.ids)
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
        ids = self.part(split).ids
        return flow_of(
            model, texts, self._embeddings(split).frames, video_of,
            name=self.engine.corpus.name, split=split, method=method, captions=captions, video_ids=tuple(ids),
            video_side=side,
        ).from_text()  # fmt: skip

    def _query_flow(self, sentence: str, method: str, steps: int | None, noise: float | None, seed: int | None) -> Flow:
        model = with_sampling(self.model(method), steps, noise, seed)
        text = self.engine.encoder.encode_text([sentence]).cpu()
        flow = self._flow_of(model, method, text, "all", (sentence,), np.zeros(1, dtype=int))
        return flow.to_videos(flow.scores_at(len(flow.points) - 1).argmax(axis=1))

    def _landmarks(self, method: str) -> DrawnFlow:
        if not self.has_captions:
            return self._landmarks_without_captions(method)
        clips = self.part("all")
        captions = tuple(clip.captions[0] for clip in clips)
        texts = caption_embeddings(self.engine.encoder, captions)
        flow = self._flow_of(self.model(method), method, texts, "all", captions, np.arange(len(clips)))
        return drawn_flow(flow, _LANDMARK_PATHS, thumbnails=self.thumbnails("all"))

    @torch.inference_mode()
    def _landmarks_without_captions(self, method: str) -> DrawnFlow:
        clips, model = self.part("all"), self.model(method)
        require(len(clips) > 1, "A map needs two clips at least, and there is one: add another video.")
        captions = tuple(clip.captions[0] for clip in demo_corpus())
        texts = caption_embeddings(self.engine.encoder, captions)
        cloud = Cloud(
            texts=texts.numpy(),
            videos=mean_pool(self._embeddings("all").frames).numpy(),
            paths=model.trajectory(texts[:1])[:, :0].numpy(),  # none, but as long as the sentence's will be
        )
        labels = MapLabels(
            texts=captions,
            videos=tuple(clip.title for clip in clips),
            video_of=np.full(len(captions), -1),
            thumbnails=tuple(self.thumbnails("all")),
        )
        return DrawnFlow(cloud, labels)

    def _gallery(self, split: str, method: str) -> tuple[Sequence[str], Gallery]:
        """The ids of clips, and the clips as a method ranks them."""
        engine, model = self.engine, self.model(method)
        loaded, everything = engine.methods.get(method), engine.embeddings
        gallery = loaded.gallery if loaded else build_gallery(model, everything.frames)
        if split == "all":
            return everything.ids, gallery
        ids, place = self.part(split).ids, {name: row for row, name in enumerate(everything.ids)}
        return ids, gallery.select(torch.tensor([place[name] for name in ids]))

    def _embeddings(self, split: str) -> CorpusEmbeddings:
        return self.engine.embeddings.select(self.part(split).ids)

    def _over(self, sentence: str) -> "Analyst":
        """The clips that any method finds first, among others that are drawn at random."""
        engine = self.engine
        place = {name: row for row, name in enumerate(engine.embeddings.ids)}
        found = [place[hit.clip.id] for r in engine.search_all(sentence, MAX_RESULTS).values() for hit in r.hits]
        others = np.random.default_rng(0).choice(len(place), MAX_LANDMARKS, replace=False).tolist()
        rows = sorted(list(dict.fromkeys([*found, *others]))[:MAX_LANDMARKS])
        part = Corpus(engine.corpus.name, tuple(engine.corpus.clips[row] for row in rows))
        return Analyst(engine.over(part, engine.embeddings.select(part.ids)), self.media, self._maps)

    def _methods(self) -> dict[str, str]:
        folder = find_weights("dits", self.engine.encoder.id).parent
        names = [path.stem for path in sorted(folder.glob("*.safetensors"))]
        further = [name for name in names if name not in SEARCH_METHODS and name.partition("-")[0] in METHODS]
        loaded = [name for name in ("dits", "xpool", "mean") if name in self.engine.methods]
        shift = ["shift"] if self.splits else []  # it is fitted on pairs
        return {name: _title(name) for name in (*loaded, *shift, *further)}

    def _model(self, method: str) -> RetrievalModel:
        if method == "shift":
            return self._mean_shift()
        if method in self.engine.methods:
            return _on_cpu(self.engine.methods[method].model)
        return load_checkpoint(find_weights(method, self.engine.encoder.id), self.engine.encoder).model

    def _mean_shift(self) -> RetrievalModel:
        """The mean gap, as the training split has it; ranked by mean pooling."""
        flow = self.flow("train" if "train" in self.splits else self.splits[0], "mean")
        model = RetrievalModel(ModelConfig("shift", PoolingConfig(kind="mean", dim=flow.points.shape[-1])))
        model.alignment.fit(flow.points[0], flow.own_videos)
        return model.eval()


class Analysts:
    """The analyst of whatever engine the page has; a new one when the engine is replaced."""

    def __init__(self, loader: EngineLoader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._analyst: Analyst | None = None

    def __call__(self) -> Analyst:
        """The analyst.

        Raises:
            DitsError: the engine is not loaded.
        """
        engine = self._loader.engine()
        with self._lock:
            if self._analyst is None or self._analyst.engine is not engine:
                self._analyst = Analyst(engine)
            return self._analyst


def validated_choice(value: object, there: Iterable[str], what: str) -> str:
    """What was chosen, if it is one of what is there.

    Raises:
        InputError: it is not.
    """
    names = list(there)
    require(
        isinstance(value, str) and value in names,
        f"There is no {what} '{str(value)[:40]}' here: choose one of {', '.join(names)}.",
    )
    return str(value)


_KEYS = itertools.count()
_LANDMARK_PATHS = 12
_SPLITS = ("validation", "test", "train")


def _title(name: str) -> str:
    """The title of further weights: dits-l2 are DITS's, l2."""
    method, _, kind = name.partition("-")
    return f"{METHODS[method].title}, {kind}" if kind else METHODS[method].title


def _on_cpu(model: RetrievalModel) -> RetrievalModel:
    """The model on the CPU, where the analysis runs: the same one, or a copy of one that searches elsewhere."""
    if model.logit_scale.device.type == "cpu":
        return model
    copy = RetrievalModel(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()

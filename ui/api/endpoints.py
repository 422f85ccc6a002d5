"""The API: every capability as an endpoint of its own, which assistants find as a tool (MCP) too."""

from typing import Any, Literal

import gradio as gr
from gradio.utils import get_function_description

from analysis.flow import VIDEO_SIDES
from analysis.measures.trajectory import trajectory_of
from dits.common.errors import require
from dits.corpora.corpus import Query
from dits.search.query import MAX_RESULTS, read_query
from ui.api import answers, validation
from ui.api.answers import Described
from ui.runtime.background import BackgroundThreads
from ui.runtime.error_messages import shown_errors
from ui.runtime.queue import SEARCHES
from ui.services.analyses import Analyst, validated_choice
from ui.services.sources import Sources
from ui.tabs.gap import NO_PAIRS
from ui.tabs.trajectory import MAX_STEPS

VERSION = 1
"""Of the API. It grows when a client would have to change: not when an endpoint, a parameter or a field is added."""

MAX_CLIPS = 1000
"""Clips that one answer lists."""

MAX_PAIRS = 500
"""Sentences that are evaluated at once."""

MAX_TEXTS = 100
"""Texts that are embedded at once."""


class Api:
    """The endpoints, over an engine that may still be loading. Their docstrings are what clients read."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def search(
        self, query: str, method: Literal["dits", "xpool", "mean"] = "dits", top: int = 5, own: bool = False
    ) -> answers.SearchAnswer:
        """Find the video clips that show what a sentence says, best first.

        Each result has the cosine that ranks it, by how many standard deviations that lies above the corpus, the second
        of the clip that matches best, and its places under the other methods.

        Args:
            query: What the clip shows, in a sentence.
            method: What ranks: dits, xpool or mean.
            top: How many results, from 1 to 100.
            own: Search the videos that you have added, on a run of your own, instead of the corpus.
        """
        sentence = validation.text(query, "The query")
        source = self._source(own)
        ranked_by = validation.text(method, "The method")[:40]
        count = validation.whole(top, "The number of results", 1, MAX_RESULTS)
        result = self._sources.engine(source).search(sentence, ranked_by, count)
        media, values = self._sources.media(source), result.as_dict()
        for value, hit in zip(values["results"], result.hits, strict=True):
            del value["path"]
            value |= {"title": hit.clip.title, "video": media.video(hit.clip)}
        return _answer(values)

    def corpus(self, offset: int = 0, limit: int = 100, own: bool = False) -> answers.CorpusAnswer:
        """List the clips that are searched, with their ids and captions, and the methods and splits that there are.

        The other tools take these ids, names of methods, and splits.

        Args:
            offset: How many clips to pass over.
            limit: How many clips to list at most, from 1 to 1000.
            own: List the videos that you have added, on a run of your own, instead of the corpus.
        """
        source = self._source(own)
        start = validation.whole(offset, "The offset", 0, 2**53)
        count = validation.whole(limit, "The limit", 1, MAX_CLIPS)
        analyst, media = self._sources.analyst(source), self._sources.media(source)
        engine = analyst.engine
        return _answer(
            {
                "corpus": engine.corpus.name,
                "encoder": engine.encoder.id,
                "videos": len(engine.corpus),
                "methods": analyst.methods,
                "search": list(engine.methods),
                "splits": analyst.splits,
                "offset": start,
                "clips": [
                    {
                        "id": clip.id,
                        "title": clip.title,
                        "split": clip.split,
                        "captions": list(clip.captions),
                        "start": clip.start,
                        "end": clip.end,
                        "video": media.video(clip),
                    }
                    for clip in engine.corpus.clips[start : start + count]
                ],
            }
        )

    def trajectory(
        self,
        query: str,
        method: str = "dits",
        steps: int | None = None,
        noise: float | None = None,
        seed: int | None = None,
        top: int = 8,
        own: bool = False,
    ) -> answers.TrajectoryAnswer:
        """Follow a sentence through the steps of the sampler, from its embedding to where its clip is looked for.

        At every step: the cosine to where it began, to the clip followed (which comes first at the end) and to the
        nearest other clip, the length of the step, the share of the distance closed; and the places of the clips that
        lead at any step.

        Args:
            query: The sentence.
            method: What moves it: a name that corpus lists under methods, such as dits or dits-l2.
            steps: T' of DITS, from 0 to 40; as trained where none is given.
            noise: Scale of the noise of DITS, from 0 to 1; 1 is the paper's; as trained where none is given.
            seed: Of the noise, from 0 to 4294967295.
            top: Clips that are among the first so many at any step are listed, from 1 to 100.
            own: Over the videos that you have added, on a run of your own, instead of the corpus.
        """
        sentence = validation.text(query, "The query")
        whole = self._sources.analyst(self._source(own))
        validated_choice(method, whole.methods, "method")
        settings = (
            validation.optional(validation.whole, steps, "T'", 0, MAX_STEPS),
            validation.optional(validation.number, noise, "The noise", 0, 1),
            validation.optional(validation.whole, seed, "The seed", 0, 2**32 - 1),
        )
        count = validation.whole(top, "The number of leading clips", 1, MAX_RESULTS)
        read, notice = read_query(sentence, whole.engine.encoder)
        analyst = whole.over(read)
        flow = analyst.query_flow(read, method, *settings)
        way = trajectory_of(flow, 0, count)
        titles = {clip.id: clip.title for clip in analyst.engine.corpus}
        return _answer(
            {
                "query": read,
                "notice": notice,
                "corpus": whole.engine.corpus.name,
                "encoder": whole.engine.encoder.id,
                "method": method,
                "exact": analyst is whole,
                "target": flow.video_ids[flow.video_of[0]],
                "steps": way["steps"],
                "videos": [video | {"title": titles[video["id"]]} for video in way["videos"]],
            }
        )

    def gap(
        self,
        split: Literal["test", "validation", "train"] = "test",
        method: str = "dits",
        video_side: Literal["mean", "pooled"] = "mean",
    ) -> answers.GapAnswer:
        """Measure how far the captions of a split lie from their clips, at every step of a method.

        Fifteen measures of the modality gap, each with how to read it, beside the retrieval at that step; 95 %
        bootstrap intervals over clips at the text and at the end; quantiles over the captions; and what closing the
        mean gap by arithmetic does. The first time takes some seconds.

        Args:
            split: The captions and clips: test, validation or train.
            method: What moves the captions: a name that corpus lists under methods, such as dits, dits-l2 or shift.
            video_side: A clip is the mean of its frames (mean), or its frames as its own caption pools them (pooled).
        """
        analyst = self._sources.analyst()
        require(analyst.has_captions, NO_PAIRS)
        validated_choice(split, analyst.splits, "split")
        validated_choice(method, analyst.methods, "method")
        validated_choice(video_side, VIDEO_SIDES, "vector of a clip")
        measured = analyst.analysis(split, method, video_side).as_dict()
        return _answer(measured | {"encoder": analyst.engine.encoder.id})

    def evaluate(
        self,
        queries: list[Described],
        method: str = "dits",
        split: Literal["all", "test", "validation", "train"] = "all",
        own: bool = False,
    ) -> answers.EvaluateAnswer:
        """Evaluate a method on sentences of yours: where does the clip that each describes rank among all clips?

        Recall at 1, 5, 10 and 50 in percent, median and mean rank, with 95 % bootstrap intervals over clips, text to
        video (t2v) and, where two clips or more are described, video to text (v2t); and every rank. Tied clips share
        the mean of their ranks.

        Args:
            queries: From 1 to 500 sentences, each with the id of its clip: [{"video_id": "...", "caption": "..."}].
            method: What ranks: a name that corpus lists under methods, such as dits, xpool or mean.
            split: The clips that are ranked: all, or those of test, validation or train.
            own: Among the videos that you have added, on a run of your own, instead of the corpus.
        """
        analyst = self._sources.analyst(self._source(own))
        validated_choice(method, analyst.methods, "method")
        described = [_query(item, analyst) for item in validation.items(queries, "The queries", MAX_PAIRS)]
        report = analyst.evaluation(described, method, split)
        return _answer(
            {
                "corpus": analyst.engine.corpus.name,
                "split": split,
                "encoder": analyst.engine.encoder.id,
                "method": method,
                "queries": len(described),
                **report,
            }
        )

    def embed(self, texts: list[str], method: str | None = None) -> answers.EmbedAnswer:
        """Embed texts in the joint space of texts and videos and, with a method, move them to where it looks for clips.

        The embeddings are as the encoder has them: normalise them to compare directions.

        Args:
            texts: From 1 to 100 texts.
            method: What moves them: a name that corpus lists under methods; v_0 is left out where none is given.
        """
        analyst = self._sources.analyst()
        encoder = analyst.engine.encoder
        if method is not None:
            validated_choice(method, analyst.methods, "method")
        listed = [
            validation.text(item, "Each of the texts") for item in validation.items(texts, "The texts", MAX_TEXTS)
        ]
        read, notices = zip(*(read_query(item, encoder) for item in listed), strict=True)
        embeddings = encoder.encode_text(read)
        return _answer(
            {
                "encoder": encoder.id,
                "method": method,
                "dimension": encoder.dim,
                "texts": list(read),
                "notices": list(notices),
                "text": embeddings.tolist(),
                "v_0": analyst.aligned(embeddings, method).tolist() if method else None,
            }
        )

    def _source(self, own: Any) -> str | None:
        """What is searched, see `ui.services.sources.Sources`."""
        return self._sources.libraries.of(None).token if validation.flag(own, "own") else None


def add_endpoints(app: gr.Blocks, api: Api, background: BackgroundThreads) -> None:
    """Makes the endpoints public, within a page. What takes long has a queue of its own, so that searches go on."""
    quick: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": SEARCHES}
    long: dict[str, Any] = {"concurrency_id": "measuring", "concurrency_limit": 1}
    for endpoint in (api.search, api.corpus):
        gr.api(shown_errors(endpoint), **quick)
    for endpoint in (api.trajectory, api.gap, api.evaluate, api.embed):
        gr.api(background(endpoint), **long)
    _describe_parameters(app)


def _describe_parameters(app: gr.Blocks) -> None:
    """Puts what docstrings say of parameters into the description of the API, where Gradio leaves it out."""
    for function in app.fns.values():
        if function.api_visibility == "public" and function.fn:
            _, said, _ = get_function_description(function.fn)
            for parameter, sentence in zip(function.inputs, said.values(), strict=True):
                parameter._api_info |= {"description": sentence, "additional_description": sentence}


def _answer(values: dict[str, Any]) -> Any:
    """An answer of this version of the API."""
    return {"api": VERSION, **validation.finite(values)}


def _query(item: Any, analyst: Analyst) -> Query:
    """A sentence and its clip, of whatever was sent."""
    require(
        isinstance(item, dict) and item.keys() == {"video_id", "caption"},
        "Each of the queries must have a video_id and a caption, and nothing else.",
    )
    caption = analyst.engine.readable(validation.text(item["caption"], "The caption"))
    return Query(validation.text(item["video_id"], "The video_id"), caption)

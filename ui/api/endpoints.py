"""The API: one endpoint for each function of the app; every endpoint is also an MCP tool."""

from typing import Any, Literal

import gradio as gr
from gradio.utils import get_function_description

from analysis.flow import VIDEO_SIDES
from analysis.measures.trajectory import trajectory_of
from dits.common.errors import require
from dits.corpora.corpus import Query
from dits.search.query import MAX_RESULTS, read_query
from ui.api import answers, validation
from ui.api.answers import CaptionedClip
from ui.runtime.background import BackgroundThreads
from ui.runtime.error_messages import show_errors
from ui.runtime.queue import MAX_SEARCHES
from ui.services.analyses import Analyst, validated_choice
from ui.services.sources import Sources
from ui.tabs.gap import NO_PAIRS
from ui.tabs.trajectory import MAX_STEPS

VERSION = 1
"""The version of the API. It grows only with breaking changes: new endpoints, parameters and fields do not count."""

MAX_CLIPS = 1000
"""The maximum number of clips that one answer lists."""

MAX_PAIRS = 500
"""The maximum number of queries that one call evaluates."""

MAX_TEXTS = 100
"""The maximum number of texts that one call embeds."""


class Api:
    """The endpoints; the engine may still be loading. Clients see the docstrings as the documentation of the API."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def search(
        self, query: str, method: Literal["dits", "xpool", "mean"] = "dits", top: int = 5, own: bool = False
    ) -> answers.SearchAnswer:
        """Find the video clips that match a sentence, best first.

        Each result has the cosine that ranks it, how many standard deviations that cosine is above the mean of the
        corpus, the time in seconds of the best matching frame, and the ranks of the clip under the other methods.

        Args:
            query: A sentence that describes the clip.
            method: The ranking method: dits, xpool or mean.
            top: The number of results, from 1 to 100.
            own: Search the videos that you have added instead of the corpus; not available on a hosted app.
        """
        sentence = validation.text(query, "The query")
        source = self._source(own)
        ranked_by = validation.text(method, "The method")[:40]
        count = validation.integer(top, "The number of results", 1, MAX_RESULTS)
        result = self._sources.engine(source).search(sentence, ranked_by, count)
        media, values = self._sources.media(source), result.as_dict()
        for value, hit in zip(values["results"], result.hits, strict=True):
            del value["path"]
            value |= {"title": hit.clip.title, "video": media.video(hit.clip)}
        return _answer(values)

    def corpus(self, offset: int = 0, limit: int = 100, own: bool = False) -> answers.CorpusAnswer:
        """List the clips of the corpus with their ids and captions, and the available methods and splits.

        The other tools take these ids, method names and splits.

        Args:
            offset: The number of clips to skip.
            limit: The maximum number of clips to list, from 1 to 1000.
            own: List the videos that you have added instead of the corpus; not available on a hosted app.
        """
        source = self._source(own)
        start = validation.integer(offset, "The offset", 0, 2**53)
        count = validation.integer(limit, "The limit", 1, MAX_CLIPS)
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
        """Follow the embedding of a query through the steps of the sampler, from the text to the aligned embedding v_0.

        For every step: the cosines to the start, to the target clip (the one that ranks first at the end) and to the
        nearest other clip, the length of the step, and the share of the distance to the target that is closed. Also
        the ranks of the leading clips at every step.

        Args:
            query: The query, a sentence.
            method: The method that aligns the query: one of the `methods` that the endpoint `corpus` lists.
            steps: The number of steps T' of DITS, from 0 to 40; by default the trained value.
            noise: The noise scale of DITS, from 0 to 1 (1 in the paper); by default the setting stored in the weights.
            seed: The seed of the noise, from 0 to 4294967295.
            top: List the clips that rank among the first `top` at any step, from 1 to 100.
            own: Use the videos that you have added instead of the corpus; not available on a hosted app.
        """
        text = validation.text(query, "The query")
        full = self._sources.analyst(self._source(own))
        validated_choice(method, full.methods, "method")
        settings = (
            validation.optional(validation.integer, steps, "T'", 0, MAX_STEPS),
            validation.optional(validation.number, noise, "The noise", 0, 1),
            validation.optional(validation.integer, seed, "The seed", 0, 2**32 - 1),
        )
        count = validation.integer(top, "The number of leading clips", 1, MAX_RESULTS)
        read, notice = read_query(text, full.engine.encoder)
        analyst = full.for_query(read)
        flow = analyst.query_flow(read, method, *settings)
        trajectory = trajectory_of(flow, 0, count)
        titles = {clip.id: clip.title for clip in analyst.engine.corpus}
        return _answer(
            {
                "query": read,
                "notice": notice,
                "corpus": full.engine.corpus.name,
                "encoder": full.engine.encoder.id,
                "method": method,
                "exact": analyst is full,
                "target": flow.video_ids[flow.video_of[0]],
                "steps": trajectory["steps"],
                "videos": [video | {"title": titles[video["id"]]} for video in trajectory["videos"]],
            }
        )

    def gap(
        self,
        split: Literal["test", "validation", "train"] = "test",
        method: str = "dits",
        video_side: Literal["mean", "pooled"] = "mean",
    ) -> answers.GapAnswer:
        """Measure the modality gap between the captions and the clips of a split, at every step of a method.

        Returns fifteen measures of the gap with their explanations and the retrieval metrics of every step, 95 %
        bootstrap intervals over clips for the first and the last step, quantiles over the captions, and the effect of
        closing the mean gap by a shift. The first call takes some seconds.

        Args:
            split: The split: test, validation or train.
            method: The method that aligns the captions: one of the `methods` that the endpoint `corpus` lists.
            video_side: The vector of a clip: the mean of its frames (mean) or frames pooled by its caption (pooled).
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
        queries: list[CaptionedClip],
        method: str = "dits",
        split: Literal["all", "test", "validation", "train"] = "all",
        own: bool = False,
    ) -> answers.EvaluateAnswer:
        """Evaluate a method on your own captions: the rank of each caption's clip among all clips.

        Returns recall at 1, 5, 10 and 50 in percent, median and mean rank with 95 % bootstrap intervals over clips, and
        every rank. The direction is text to video (t2v) and, if at least two clips have captions, also video to text
        (v2t). Tied clips share the mean of their ranks.

        Args:
            queries: From 1 to 500 captions with the ids of their clips: [{"video_id": "...", "caption": "..."}].
            method: The ranking method: one of the `methods` that the endpoint `corpus` lists.
            split: The clips to rank: all, test, validation or train.
            own: Rank the videos that you have added instead of the corpus; not available on a hosted app.
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
        """Embed texts in the joint space of texts and videos and, if a method is given, align the embeddings with it.

        The embeddings are the encoder's and are not normalised: normalise them to compare directions.

        Args:
            texts: From 1 to 100 texts.
            method: Aligns the texts: one of the `methods` that the endpoint `corpus` lists; without it, v_0 is null.
        """
        analyst = self._sources.analyst()
        encoder = analyst.engine.encoder
        if method is not None:
            validated_choice(method, analyst.methods, "method")
        items = validation.items(texts, "The texts", MAX_TEXTS)
        listed = [validation.text(item, "Each of the texts") for item in items]
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
                "v_0": analyst.align(embeddings, method).tolist() if method else None,
            }
        )

    def _source(self, own: Any) -> str | None:
        """The source to search: see `ui.services.sources.Sources`."""
        return self._sources.libraries.of(None).token if validation.flag(own, "own") else None


def add_endpoints(app: gr.Blocks, api: Api, background: BackgroundThreads) -> None:
    """Add the endpoints to a page. Slow endpoints have their own queue, so that searches do not wait for them."""
    quick: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": MAX_SEARCHES}
    slow: dict[str, Any] = {"concurrency_id": "measuring", "concurrency_limit": 1}
    for endpoint in (api.search, api.corpus):
        gr.api(show_errors(endpoint), **quick)
    for endpoint in (api.trajectory, api.gap, api.evaluate, api.embed):
        gr.api(background(endpoint), **slow)
    _describe_parameters(app)


def _describe_parameters(app: gr.Blocks) -> None:
    """Add the parameter descriptions of the docstrings, which Gradio leaves out."""
    for function in app.fns.values():
        if function.api_visibility == "public" and function.fn:
            _, descriptions, _ = get_function_description(function.fn)
            for parameter, description in zip(function.inputs, descriptions.values(), strict=True):
                parameter._api_info |= {"description": description, "additional_description": description}


def _answer(values: dict[str, Any]) -> Any:
    return {"api": VERSION, **validation.finite(values)}


def _query(item: Any, analyst: Analyst) -> Query:
    """A caption and its clip, from one item of a request."""
    require(
        isinstance(item, dict) and item.keys() == {"video_id", "caption"},
        "Each of the queries must have a video_id and a caption, and nothing else.",
    )
    caption = analyst.engine.clean_query(validation.text(item["caption"], "The caption"))
    return Query(validation.text(item["video_id"], "The video_id"), caption)

"""The JSON answers of the API endpoints. Field names match the command line's JSON where both have the field.

Every answer has `api`, the version of the API: see `ui.api.endpoints.VERSION`.
"""

from typing import Any, TypedDict


class Frame(TypedDict):
    """A sampled frame: its time in seconds and its pooling weight."""

    time: float
    weight: float


class Result(TypedDict):
    """A search result; see `dits.search.results.Hit`. `video` is its path below the address of the app."""

    rank: int
    id: str
    title: str
    score: float
    deviations: float
    video: str
    start: float | None
    end: float | None
    best_moment: float
    frames: list[Frame]
    ranks: dict[str, int]


class SearchAnswer(TypedDict):
    """A ranking; see `dits.search.results.SearchResult`."""

    api: int
    query: str
    encoder: str
    method: str
    notice: str | None
    exact: bool
    missing: list[str]
    results: list[Result]


class ClipAnswer(TypedDict):
    """A clip of the corpus."""

    id: str
    title: str
    split: str
    captions: list[str]
    start: float | None
    end: float | None
    video: str


class CorpusAnswer(TypedDict):
    """The corpus: `methods` maps names to titles, `search` lists the methods that rank, `splits` can be measured."""

    api: int
    corpus: str
    encoder: str
    videos: int
    methods: dict[str, str]
    search: list[str]
    splits: list[str]
    offset: int
    clips: list[ClipAnswer]


class Step(TypedDict):
    """A point of a trajectory; see `analysis.measures.trajectory.PATH_MEASURES`."""

    step: int
    timestep: int
    step_length: float
    cosine_to_start: float
    cosine_to_target: float
    cosine_to_distractor: float | None
    gap_closed: float
    rank: float


class Leader(TypedDict):
    """A clip that is among the first at some step, and its rank at every step."""

    id: str
    title: str
    ranks: list[int]


class TrajectoryAnswer(TypedDict):
    """A trajectory; `target` is the clip that ranks first at its end."""

    api: int
    query: str
    notice: str | None
    corpus: str
    encoder: str
    method: str
    exact: bool
    target: str
    steps: list[Step]
    videos: list[Leader]


class GapAnswer(TypedDict):
    """The content of analysis.json of `python -m dits analyse`; see `analysis.measures.analysis.Analysis.as_dict`."""

    api: int
    corpus: str
    encoder: str
    split: str
    method: str
    pairs: int
    videos: int
    video_side: str
    noise_seeds: int
    sampled: dict[str, int]
    measures: dict[str, dict[str, str]]
    path_measures: dict[str, str]
    quantiles: list[float]
    steps: list[dict[str, Any]]
    largest_step_share: float
    mean_shift: list[dict[str, Any]]


class CaptionedClip(TypedDict):
    """A caption and the id of its clip."""

    video_id: str
    caption: str


class CaptionRank(TypedDict):
    """The rank of a caption's clip among the clips."""

    video_id: str
    caption: str
    rank: float


class ClipRank(TypedDict):
    """The rank of a clip's best caption among the best captions of all clips."""

    video_id: str
    rank: float


class Ranks(TypedDict, total=False):
    """Ranks by direction; v2t is missing if fewer than two clips have captions."""

    t2v: list[CaptionRank]
    v2t: list[ClipRank]


class EvaluateAnswer(TypedDict):
    """Retrieval metrics by direction, t2v and v2t, with bootstrap intervals over clips, and the ranks behind them."""

    api: int
    corpus: str
    split: str
    encoder: str
    method: str
    videos: int
    queries: int
    n: dict[str, int]
    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, list[float]]]
    ranks: Ranks


class EmbedAnswer(TypedDict):
    """Embeddings, not normalised, of the texts as the encoder reads them; `v_0` are the aligned embeddings."""

    api: int
    encoder: str
    method: str | None
    dimension: int
    texts: list[str]
    notices: list[str | None]
    text: list[list[float]]
    v_0: list[list[float]] | None

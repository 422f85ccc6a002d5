"""What the endpoints of the API answer, as JSON. Names are those of the command line's JSON, where it has them.

Every answer holds `api`, the version of the API, see `ui.api.endpoints.VERSION`.
"""

from typing import Any, TypedDict


class Frame(TypedDict):
    """A sampled frame, when it is shown, in seconds, and how much pooling counts it."""

    time: float
    weight: float


class Result(TypedDict):
    """A clip that was found; see `dits.search.results.Hit`. `video` is its address below that of the app."""

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
    """What is searched: `methods` are titles by name, those in `search` rank, and `splits` can be measured."""

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
    """A point of a sentence's way; see `analysis.measures.trajectory.PATH_MEASURES`."""

    step: int
    timestep: int
    step_length: float
    cosine_to_start: float
    cosine_to_target: float
    cosine_to_distractor: float | None
    gap_closed: float
    rank: float


class Leader(TypedDict):
    """A clip that is among the first at some step, and its place at every step."""

    id: str
    title: str
    ranks: list[int]


class TrajectoryAnswer(TypedDict):
    """A sentence's way; `target` is the clip followed, which comes first at the end."""

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
    """What `python -m dits analyse` writes to analysis.json; see `analysis.measures.analysis.Analysis.as_dict`."""

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


class Described(TypedDict):
    """A sentence, and the id of the clip that it describes."""

    video_id: str
    caption: str


class CaptionRank(TypedDict):
    """The rank of a sentence's clip among the clips."""

    video_id: str
    caption: str
    rank: float


class ClipRank(TypedDict):
    """The rank of a clip's best sentence among all clips' best sentences."""

    video_id: str
    rank: float


class Ranks(TypedDict, total=False):
    """Ranks by direction; v2t is missing where fewer than two clips are described."""

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
    """Embeddings, not normalised, of the texts as they were read; `v_0` are those that a method moves them to."""

    api: int
    encoder: str
    method: str | None
    dimension: int
    texts: list[str]
    notices: list[str | None]
    text: list[list[float]]
    v_0: list[list[float]] | None

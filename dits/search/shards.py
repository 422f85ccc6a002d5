"""Search past one machine: Ray actors hold a part of an index each, and a query's answer is merged from theirs.

Every query is exact. The driver embeds and aligns the text once; each shard ranks consecutive rows, in the order of
their ids, of one version of the index. On machines of one kind scores are those of one machine to the last bit, and so
is the order, which ids decide among equal scores. The mean and deviation of all scores are combined in float64 from
those of the shards, which sum in float64 and hand them over in float32: they agree with one machine's to 1e-6 or so.

A machine joins with `ray start --address HOST:PORT`. Shards of a machine that is lost start again where there is room,
on another or once it is back; a machine that joins without need gets a shard at the next `rebalance`, or in the next
run of the command line, which cuts the index anew each time.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dits.common.errors import ClusterError, DitsError, InputError, require
from dits.corpora.index_location import is_index, location_of
from dits.corpora.names import Progress
from dits.encoders.openclip import OpenClipEncoder, load_encoder
from dits.index.cluster import connected, living, reason_of
from dits.index.store import VideoIndex
from dits.models.retrieval import RetrievalModel
from dits.search.methods import load_model, weights_name
from dits.search.query import check_top, read_query
from dits.search.results import Hit, SearchResult
from dits.search.shard import Answer, Found, Shard, ShardPlan, for_shards

CPUS_A_SHARD = 1
"""What a shard reserves where there are no GPUs, so that several searches fit on a cluster. It computes on all cores of
its machine, whatever it reserves."""

_SECONDS_TO_PLACE = 120  # a process starts and imports PyTorch
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_BETWEEN_LOOKS = 5.0  # at which machines are there; Ray takes ten to notice that one is gone
_LATE = {"place": "found no free place", "open": "did not open", "answer": "did not answer"}


@dataclass(frozen=True)
class ShardConfig:
    """How an index is searched on several machines.

    Attributes:
        shards: how many parts; 0 is one a GPU, or where there are none one a machine.
        partial: give the ranking of the shards that answer, where some do not, and say so, instead of failing.
        seconds: that a query may take.
        seconds_to_start: that shards may take to copy their rows from the index, and to compute what is kept of them.
    """

    shards: int = 0
    partial: bool = False
    seconds: float = 30.0
    seconds_to_start: float = 1800.0

    def __post_init__(self) -> None:
        require(self.shards >= 0, f"The number of shards must be 1 or more, not {self.shards}.")
        require(self.seconds > 0, f"The seconds that a query may take must be above 0, not {self.seconds:g}.")


@contextmanager
def open_shards(
    address: str,
    corpus: str,
    encoder: str,
    method: str = "dits",
    weights: Path | None = None,
    config: ShardConfig | None = None,
    progress: Progress | None = None,
) -> Iterator["ShardedSearch"]:
    """An index ready for search by one method on a Ray cluster, until the block ends.

    Args:
        address: see `dits.index.cluster.connected`.
        corpus, encoder, weights: see `dits.search.loading.load_engine`; the corpus must be an index.

    Raises:
        DitsError: anything is missing or damaged, or a shard does not start; the message says what.
    """
    if not is_index(corpus):
        raise InputError(f"{corpus} is no index of videos, and nothing else is searched on a cluster: name one.")
    with connected(address) as ray:
        loaded = load_encoder(encoder)
        index = VideoIndex.open(location_of(corpus), loaded)
        search = ShardedSearch(ray, index, loaded, *load_model(method, loaded, weights), config, progress)
        try:
            yield search
        finally:
            search.close()


class ShardedSearch:
    """An index over several machines, searched by one method; what `dits.search.engine.SearchEngine` is on one."""

    def __init__(
        self,
        ray: Any,
        index: VideoIndex,
        encoder: OpenClipEncoder,
        model: RetrievalModel,
        sha256: str | None,
        config: ShardConfig | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Starts the shards, see `rebalance`.

        Args:
            ray: Ray's module, connected.
            sha256: of the model's weights, if it has any.
        """
        self._ray, self._index, self._encoder, self._model = ray, index, encoder, model
        self._config, self._progress = config or ShardConfig(), progress
        self._weights = weights_name(model.config.method, sha256)
        self._sent = ray.put(for_shards(model))  # kept, for a shard that starts again asks for it
        self._shards: list[Any] = []
        self.rebalance()

    def __len__(self) -> int:
        """How many shards there are."""
        return len(self._shards)

    def rebalance(self) -> None:
        """Cuts the index as it is now anew, over the machines that there are now; what was there is given back.

        Raises:
            InputError: the index holds no videos, or there is no room for so many shards.
            ClusterError: a shard does not start, and no partial results are wanted.
        """
        self.close()
        location, version = self._index.location, self._index.version
        if not self._index.counts()["segments"]:
            raise InputError(f"The index {location} holds no videos yet: add some with `python -m dits index add`.")
        parts, options = self._room()
        actor = self._ray.remote(ShardActor).options(**options)
        self._shards = [
            actor.remote(ShardPlan(location, self._index.encoder, version, part, parts, self._weights), self._sent)
            for part in range(parts)
        ]
        self._tell(0)
        self._check(self._each("place", (), _SECONDS_TO_PLACE))
        self._check(self._each("open", (), self._config.seconds_to_start, self._tell))

    def search(self, text: str, top: int = 5) -> SearchResult:
        """Ranks the index for a sentence. `ranks` of the hits know this method alone.

        Raises:
            InputError: the query is empty, or `top` is out of range.
            ClusterError: a shard does not answer, and no partial result is wanted, or none does.
        """
        query, notice = read_query(text, self._encoder)
        check_top(top)
        embedding = self._encoder.encode_text([query])
        results = self._each("answer", (embedding, self._aligned(embedding), top), self._config.seconds)
        missing = self._check(results)
        method = self._model.config.method
        whole = merged([result for result in results if isinstance(result, Answer)], top)
        return SearchResult(
            query=query,
            encoder=self._encoder.id,
            method=method,
            hits=tuple(
                Hit(
                    rank=rank,
                    clip=found.clip,
                    score=found.score,
                    deviations=(found.score - whole.mean) / whole.deviation,
                    frames=found.frames,
                    best_moment=found.best_moment,
                    ranks={method: rank},
                )
                for rank, found in enumerate(whole.found, start=1)
            ),
            spread=(whole.lowest, whole.mean, whole.highest),
            notice=notice,
            exact=not missing,
            missing=missing,
        )

    def close(self) -> None:
        """Gives the shards' places back."""
        for shard in self._shards:
            self._ray.kill(shard)
        self._shards = []

    @torch.inference_mode()
    def _aligned(self, embedding: Tensor) -> Tensor | None:
        if self._model.alignment.pairwise:
            return None
        return self._model.align(embedding.to(self._encoder.device)).cpu()

    def _room(self) -> tuple[int, dict[str, Any]]:
        """How many shards there are to be, and what Ray is asked for each."""
        gpus = living(self._ray, "GPU")
        kind, units = ("GPU", gpus) if gpus else ("CPU", living(self._ray, "CPU"))
        parts = self._config.shards or (int(sum(gpus)) if gpus else len(units))
        if parts > sum(units):
            raise InputError(
                f"There is no room for {parts} shards, which take a {kind} each: the cluster has {sum(units):g}. "
                "Choose fewer, or add a machine with `ray start --address`."
            )
        needed = {"num_gpus": 1} if gpus else {"num_cpus": CPUS_A_SHARD}
        return parts, {"scheduling_strategy": "SPREAD", "max_restarts": -1, "max_task_retries": 0, **needed}

    def _has_room(self) -> bool:
        """Whether the machines that are there suffice for all shards."""
        return sum(living(self._ray, "GPU") or living(self._ray, "CPU")) >= len(self._shards)

    def _each(
        self, call: str, arguments: tuple[Any, ...], seconds: float, tell: Callable[[int], None] | None = None
    ) -> "list[Any | _Missing]":
        """What a method of each shard gives, or why it gives nothing."""
        deadline = time.monotonic() + seconds
        calls = [getattr(shard, call).remote for shard in self._shards]
        asked = [ask(*arguments) for ask in calls]
        results = []
        for number, (ask, first) in enumerate(zip(calls, asked, strict=True), start=1):
            result = self._result(partial(ask, *arguments), first, deadline)
            if isinstance(result, _Missing):
                late = f"{_LATE[call]} in {seconds:g} seconds"
                result = _Missing(f"Shard {number} of {len(calls)} {result or late}.")
            results.append(result)
            if tell:
                tell(number)
        return results

    def _result(self, ask: Callable[[], Any], asked: Any, deadline: float) -> Any:
        """What a call gives, or why it gives nothing; "" where that is the time."""
        errors = self._ray.exceptions
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return self._ray.get(asked, timeout=min(left, _SECONDS_BETWEEN_LOOKS))
            except errors.GetTimeoutError:
                lost = False
            except errors.ActorUnavailableError:  # Ray starts it again where there is room
                lost = True
            except (errors.RayTaskError, errors.RayActorError) as error:
                return _Missing(f"fails: {reason_of(error)}")
            if not self._has_room() or (lost and not left):
                return _Missing("is lost with its machine or process")
            if not left:
                return _Missing()
            if lost:
                time.sleep(_SECONDS_BETWEEN_TRIES)
                asked = ask()

    def _check(self, results: "Sequence[Any | _Missing]") -> tuple[str, ...]:
        """Why shards gave nothing.

        Raises:
            ClusterError: one did not, and no partial results are wanted, or none did.
        """
        missing = tuple(str(result) for result in results if isinstance(result, _Missing))
        if missing and (not self._config.partial or len(missing) == len(results)):
            raise ClusterError(
                f"{' '.join(missing)} Run it again when the machine is back, or for the others' results with --partial."
            )
        return missing

    def _tell(self, done: int) -> None:
        if self._progress:
            self._progress("Opening the shards", done, len(self._shards))


class ShardActor:
    """A shard in a process of its own, which is there at once and opens its part when it is told to.

    Where Ray has started it again it opens it by itself. What goes wrong then is said to whoever asks.
    """

    def __init__(self, plan: ShardPlan, model: RetrievalModel) -> None:
        """See `Shard`."""
        import ray

        self._plan, self._model = plan, model
        self._shard: Shard | None = None
        if ray.get_runtime_context().was_current_actor_reconstructed:
            with suppress(DitsError):
                self._opened()

    def place(self) -> None:
        """Nothing: the answer says that the process runs."""

    def open(self) -> int:
        """Reads the shard's part of the index; how many videos it has."""
        return len(self._opened())

    def answer(self, text: Tensor, aligned: Tensor | None, k: int) -> Answer:
        """See `Shard.answer`."""
        return self._opened().answer(text, aligned, k)

    def _opened(self) -> Shard:
        if self._shard is None:
            self._shard = Shard(self._plan, self._model)
        return self._shard


class _Missing(str):
    """Why a shard gave nothing."""


@dataclass(frozen=True)
class Merged:
    """The best videos of several shards, and how the scores of all are spread."""

    found: tuple[Found, ...]
    mean: float
    deviation: float
    lowest: float
    highest: float


def merged(answers: Sequence[Answer], top: int) -> Merged:
    """The best of all that shards found; of equal scores the lower id comes first.

    From n rows, mean m and deviation s of each shard: the mean M is that of all rows, and the squares around it are the
    sums of (n - 1) s^2 + n (m - M)^2.
    """
    filled = [answer for answer in answers if answer.rows]
    if not filled:
        return Merged((), 0.0, 1.0, 0.0, 0.0)
    rows = sum(answer.rows for answer in filled)
    mean = math.fsum(answer.rows * answer.mean for answer in filled) / rows
    squares = math.fsum((a.rows - 1) * a.deviation**2 + a.rows * (a.mean - mean) ** 2 for a in filled)
    found = sorted((one for answer in filled for one in answer.found), key=lambda one: (-one.score, one.clip.id))
    return Merged(
        found=tuple(found[:top]),
        mean=mean,
        deviation=max(1e-9, math.sqrt(squares / (rows - 1))) if rows > 1 else 1.0,
        lowest=min(answer.lowest for answer in filled),
        highest=max(answer.highest for answer in filled),
    )

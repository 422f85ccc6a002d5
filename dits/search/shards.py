"""Search on several machines: each Ray actor searches one shard of an index, and the driver merges the results.

Every query is exact. The driver embeds and aligns the text once. Each shard ranks consecutive rows, ordered by id, of
one version of the index. On machines of one kind, the scores and the order are those of one machine to the last bit; of
equal scores the lower id comes first. The mean and the deviation of all scores are combined in float64 from those of
the shards, which are summed in float64 and sent as float32: they agree with those of one machine to about 1e-6.

A machine joins with `ray start --address HOST:PORT`. Shards of a lost machine start again as soon as any machine has
room. An additional machine gets a shard at the next `rebalance` or the next run of the command line, which divides the
index again.
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
from dits.index.cluster import ray_connection, reason_of, units_per_machine
from dits.index.store import VideoIndex
from dits.models.retrieval import RetrievalModel
from dits.search.methods import load_model, weights_name
from dits.search.query import check_top, read_query
from dits.search.results import Hit, SearchResult
from dits.search.shard import Shard, ShardPlan, ShardResult, model_for_shards

CPUS_PER_SHARD = 1
"""CPUs that a shard reserves if there are no GPUs: few, so that several searches fit on a cluster. A shard computes on
all cores of its machine."""

_SECONDS_TO_PLACE = 120  # a process starts and imports PyTorch
_SECONDS_BETWEEN_TRIES = 0.5
_SECONDS_BETWEEN_CHECKS = 5.0  # of the machines; Ray needs ten seconds to notice a lost machine
_LATE = {"place": "found no free place", "open": "did not open", "search": "did not answer"}


@dataclass(frozen=True)
class ShardConfig:
    """How an index is searched on several machines.

    Attributes:
        shards: number of shards; 0 means one per GPU, or one per machine if there are no GPUs.
        partial: if some shards do not answer, return the ranking of the others with a note instead of failing.
        seconds: time limit of a query.
        seconds_to_start: time limit of the start, in which shards copy their rows and compute the derived arrays.
    """

    shards: int = 0
    partial: bool = False
    seconds: float = 30.0
    seconds_to_start: float = 1800.0

    def __post_init__(self) -> None:
        require(self.shards >= 0, f"The number of shards must be at least 0 (0: automatic), not {self.shards}.")
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
    """Context manager: an index that is searched by one method on a Ray cluster.

    Args:
        address: see `dits.index.cluster.ray_connection`.
        corpus, encoder, weights: see `dits.search.loading.load_engine`; the corpus must be an index.

    Raises:
        DitsError: anything is missing or damaged, or a shard does not start; the message says what.
    """
    if not is_index(corpus):
        raise InputError(f"{corpus} is not an index of videos: name an index, because a cluster searches nothing else.")
    with ray_connection(address) as ray:
        loaded = load_encoder(encoder)
        index = VideoIndex.open(location_of(corpus), loaded)
        search = ShardedSearch(ray, index, loaded, *load_model(method, loaded, weights), config, progress)
        try:
            yield search
        finally:
            search.close()


class ShardedSearch:
    """Search in an index on several machines by one method; `dits.search.engine.SearchEngine` is for one machine."""

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
        """Start the shards, see `rebalance`.

        Args:
            ray: the module `ray`, connected to a cluster.
            sha256: checksum of the model's weights, if any.
        """
        self._ray, self._index, self._encoder, self._model = ray, index, encoder, model
        self._config, self._progress = config or ShardConfig(), progress
        self._weights = weights_name(model.config.method, sha256)
        self._model_ref = ray.put(model_for_shards(model))  # shards that start again need it
        self._shards: list[Any] = []
        self.rebalance()

    def __len__(self) -> int:
        """The number of shards."""
        return len(self._shards)

    def rebalance(self) -> None:
        """Stop the shards, divide the latest version of the index among the present machines, and start new shards.

        Raises:
            InputError: the index holds no videos, or there is no room for the number of shards.
            ClusterError: a shard does not start (with `partial`: no shard starts).
        """
        self.close()
        location, version = self._index.location, self._index.version
        if not self._index.counts()["segments"]:
            raise InputError(f"The index {location} holds no videos yet: add some with `python -m dits index add`.")
        parts, options = self._resources()
        actor = self._ray.remote(ShardActor).options(**options)
        self._shards = [
            actor.remote(ShardPlan(location, self._index.encoder, version, part, parts, self._weights), self._model_ref)
            for part in range(parts)
        ]
        self._report_opened(0)
        self._check(self._call("place", (), _SECONDS_TO_PLACE))
        self._check(self._call("open", (), self._config.seconds_to_start, self._report_opened))

    def search(self, text: str, top: int = 5) -> SearchResult:
        """Rank the index for a query. `ranks` of the hits only have this method.

        Raises:
            InputError: the query is empty, or `top` is out of range.
            ClusterError: a shard does not answer (with `partial`: no shard answers).
        """
        query, notice = read_query(text, self._encoder)
        check_top(top)
        embedding = self._encoder.encode_text([query])
        results = self._call("search", (embedding, self._align(embedding), top), self._config.seconds)
        missing = self._check(results)
        method = self._model.config.method
        merged = merge_results([result for result in results if isinstance(result, ShardResult)], top)
        return SearchResult(
            query=query,
            encoder=self._encoder.id,
            method=method,
            hits=tuple(
                Hit(
                    rank=rank,
                    clip=hit.clip,
                    score=hit.score,
                    deviations=(hit.score - merged.mean) / merged.deviation,
                    frames=hit.frames,
                    best_moment=hit.best_moment,
                    ranks={method: rank},
                )
                for rank, hit in enumerate(merged.hits, start=1)
            ),
            spread=(merged.lowest, merged.mean, merged.highest),
            notice=notice,
            exact=not missing,
            missing=missing,
        )

    def close(self) -> None:
        """Stop the shards and release their resources."""
        for shard in self._shards:
            self._ray.kill(shard)
        self._shards = []

    @torch.inference_mode()
    def _align(self, embedding: Tensor) -> Tensor | None:
        if self._model.alignment.pairwise:
            return None
        return self._model.align(embedding.to(self._encoder.device)).cpu()

    def _resources(self) -> tuple[int, dict[str, Any]]:
        """The number of shards to start, and the options of each Ray actor."""
        gpus = units_per_machine(self._ray, "GPU")
        kind, units = ("GPU", gpus) if gpus else ("CPU", units_per_machine(self._ray, "CPU"))
        parts = self._config.shards or (int(sum(gpus)) if gpus else len(units))
        if parts > sum(units):
            raise InputError(
                f"There is no room for {parts} shards, which take a {kind} each: the cluster has {sum(units):g}. "
                "Choose fewer, or add a machine with `ray start --address`."
            )
        reserved = {"num_gpus": 1} if gpus else {"num_cpus": CPUS_PER_SHARD}
        return parts, {"scheduling_strategy": "SPREAD", "max_restarts": -1, "max_task_retries": 0, **reserved}

    def _has_room(self) -> bool:
        """Whether the present machines have room for all shards."""
        return sum(units_per_machine(self._ray, "GPU") or units_per_machine(self._ray, "CPU")) >= len(self._shards)

    def _call(
        self, name: str, arguments: tuple[Any, ...], seconds: float, report: Callable[[int], None] | None = None
    ) -> "list[Any | _Missing]":
        """The result of a method of each shard, or the reason why there is none."""
        deadline = time.monotonic() + seconds
        calls = [partial(getattr(shard, name).remote, *arguments) for shard in self._shards]
        references = [call() for call in calls]
        results = []
        for number, (call, reference) in enumerate(zip(calls, references, strict=True), start=1):
            result = self._result(call, reference, deadline)
            if isinstance(result, _Missing):
                late = f"{_LATE[name]} in {seconds:g} seconds"
                result = _Missing(f"Shard {number} of {len(calls)} {result or late}.")
            results.append(result)
            if report:
                report(number)
        return results

    def _result(self, call: Callable[[], Any], reference: Any, deadline: float) -> Any:
        """The result of a call, or the reason why there is none; "" means the deadline."""
        errors = self._ray.exceptions
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return self._ray.get(reference, timeout=min(left, _SECONDS_BETWEEN_CHECKS))
            except errors.GetTimeoutError:
                lost = False
            except errors.ActorUnavailableError:  # Ray starts it again if there is room
                lost = True
            except (errors.RayTaskError, errors.RayActorError) as error:
                return _Missing(f"fails: {reason_of(error)}")
            if not self._has_room() or (lost and not left):
                return _Missing("is lost with its machine or process")
            if not left:
                return _Missing()
            if lost:
                time.sleep(_SECONDS_BETWEEN_TRIES)
                reference = call()

    def _check(self, results: "Sequence[Any | _Missing]") -> tuple[str, ...]:
        """The reasons why shards have no result.

        Raises:
            ClusterError: a shard has no result (with `partial`: no shard has one).
        """
        missing = tuple(str(result) for result in results if isinstance(result, _Missing))
        if missing and (not self._config.partial or len(missing) == len(results)):
            advice = "Run it again when the machine is back, or with --partial for the results of the other shards."
            raise ClusterError(f"{' '.join(missing)} {advice}")
        return missing

    def _report_opened(self, done: int) -> None:
        if self._progress:
            self._progress("Opening the shards", done, len(self._shards))


class ShardActor:
    """A shard in its own process, which starts at once and opens its part of the index in a separate call.

    If Ray has started it again, it also opens its part at once; if that fails, the next call tries again.
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
        """Do nothing: the call returns once the process runs."""

    def open(self) -> int:
        """Open the shard's part of the index and return its number of videos."""
        return len(self._opened())

    def search(self, text: Tensor, aligned: Tensor | None, k: int) -> ShardResult:
        """See `Shard.search`."""
        return self._opened().search(text, aligned, k)

    def _opened(self) -> Shard:
        if self._shard is None:
            self._shard = Shard(self._plan, self._model)
        return self._shard


class _Missing(str):
    """The reason why a shard has no result."""


def merge_results(results: Sequence[ShardResult], top: int) -> ShardResult:
    """The best hits and the statistics of all shards together; of equal scores the lower id comes first.

    With n rows, mean m and deviation s of each shard, and the mean M of all rows, the sum of squared deviations from M
    is the sum of (n - 1) s^2 + n (m - M)^2 over the shards.
    """
    results = [result for result in results if result.rows]
    if not results:
        return ShardResult(0, deviation=1.0)
    rows = sum(result.rows for result in results)
    mean = math.fsum(result.rows * result.mean for result in results) / rows
    squares = math.fsum((r.rows - 1) * r.deviation**2 + r.rows * (r.mean - mean) ** 2 for r in results)
    hits = sorted((hit for result in results for hit in result.hits), key=lambda hit: (-hit.score, hit.clip.id))
    return ShardResult(
        rows,
        tuple(hits[:top]),
        mean=mean,
        deviation=max(1e-9, math.sqrt(squares / (rows - 1))) if rows > 1 else 1.0,
        lowest=min(result.lowest for result in results),
        highest=max(result.highest for result in results),
    )

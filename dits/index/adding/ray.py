"""Reading and embedding on a Ray cluster. Ray Data places and scales readers and encoders independently.

Readers are tasks of one CPU each. Encoders are actors: one per GPU, or without GPUs one per four CPUs. Ray's object
store bounds the results that wait between them. The process that started the run writes the rows, so they are the same,
and as safe, as on one machine. Every machine must find the videos under the same paths.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dits.common.errors import ClusterError
from dits.encoders.openclip import OpenClipEncoder, load_encoder
from dits.index.adding.config import AddConfig
from dits.index.adding.embedding import SegmentEncoder
from dits.index.adding.local import JobResult
from dits.index.adding.reader import ReadFile, ReadJob, read_files
from dits.index.cluster import reason_of, units_per_machine
from dits.index.scan import path_text

_MAX_TASKS = 10_000
_BYTES_PER_BLOCK = 16 * 2**20  # of readers' results: the pixels of a job
_CPUS_PER_ENCODER = 4
_READER_MEMORY = 2**28  # bytes; encoders request other resources, so Ray Data does not fuse the two operators
_NO_PIXELS = np.empty(0, np.uint8)
_LOOKUP_TIMEOUT = 120  # seconds


@dataclass(frozen=True)
class _Step:
    """A finished job: `file` is the number of its file in the run, `number` its own among the jobs of the file."""

    file: int
    number: int
    job: ReadJob
    result: ReadFile | str
    embeddings: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    notices: tuple[str, ...] = ()


class RayBackend:
    """A backend (see `dits.index.adding.local.Backend`) that reads and embeds on a Ray cluster."""

    def __init__(self, ray: Any, name: str, encoder: OpenClipEncoder, config: AddConfig, encoders: int = 0) -> None:
        """Prepares the backend; nothing is started on the cluster yet.

        Args:
            ray: the Ray module, connected.
            name: of the encoder, see `dits.encoders.openclip.load_encoder`; every machine loads it.
            encoder: the same encoder, loaded here.
            config: `workers` is the number of readers on the whole cluster; 0 is no limit.
            encoders: number of encoders; 0 is one per GPU, or one per four CPUs.

        Raises:
            InputError: the precision is unknown.
        """
        self._ray, self._name, self._encoder, self._config, self._encoders = ray, name, encoder, config, encoders
        SegmentEncoder(encoder, config.precision)  # raises InputError before anything starts
        self._notices: dict[str, None] = {}

    @property
    def notices(self) -> Sequence[str]:
        """See `Backend`."""
        return list(self._notices)

    def process(self, jobs: Sequence[ReadJob], refused: set[bytes], tick: Callable[[], None]) -> Generator[JobResult]:
        """See `Backend`. Copies are embedded like their originals and discarded afterwards.

        Raises:
            ClusterError: a machine does not find the first video, loads another encoder, or the cluster fails.
        """
        if not jobs:
            return
        try:
            self._check_machines_find(jobs[0].path)
            for step in _in_order(row["step"] for row in self._dataset(jobs).iter_rows()):
                self._notices.update(dict.fromkeys(step.notices))
                tick()
                yield step.job, step.result, step.embeddings
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"The cluster failed; what was embedded is stored: {reason_of(error)}.") from error

    def _dataset(self, jobs: Sequence[ReadJob]) -> Any:
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is reported by the run
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = _BYTES_PER_BLOCK
        gpus, cpus = sum(units_per_machine(ray, "GPU")), sum(units_per_machine(ray, "CPU"))
        share = min(1.0, cpus / 2)  # a reader and an encoder fit on any cluster
        encoders = self._encoders or int(gpus or max(1, cpus // _CPUS_PER_ENCODER))
        numbered = [{"file": file, "job": job} for file, job in enumerate(jobs)]
        return (
            ray.data.from_items(numbered, override_num_blocks=min(len(jobs), _MAX_TASKS))
            .map_batches(
                _read,
                fn_kwargs={"seconds": self._config.seconds},
                batch_size=1,
                num_cpus=share,
                memory=_READER_MEMORY,
                compute=ray.data.TaskPoolStrategy(self._config.workers or None),
            )
            .map_batches(
                _Encode,
                fn_constructor_args=(self._name, self._encoder.id, self._config.precision),
                batch_size=1,
                num_gpus=1 if gpus else None,
                num_cpus=None if gpus else share,
                compute=ray.data.ActorPoolStrategy(size=encoders),
            )
        )

    def _check_machines_find(self, path: bytes) -> None:
        """Raises ClusterError if a machine does not find a file."""
        ray = self._ray
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        exists = ray.remote(num_cpus=0)(os.path.lexists)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        tasks = [exists.options(scheduling_strategy=pinned(node["NodeID"], soft=False)).remote(path) for node in nodes]
        for node, found in zip(nodes, ray.get(tasks, timeout=_LOOKUP_TIMEOUT), strict=True):
            if not found:
                raise ClusterError(
                    f"The machine {node['NodeManagerAddress']} has no file {path_text(path)}: put the videos on "
                    "storage that every machine mounts under the same path."
                )


def _read(batch: dict[str, np.ndarray], seconds: float) -> Iterator[dict[str, list[Any]]]:
    """Reads a file job by job in one worker process."""
    [file], [job] = batch["file"], batch["job"]
    for number, (done, result) in enumerate(read_files([job], 1, seconds, set())):
        yield {"step": [_Step(int(file), number, done, result)]}


class _Encode:
    """Embeds the segments of a step and drops their pixels."""

    def __init__(self, name: str, encoder_id: str, precision: str) -> None:
        encoder = load_encoder(name)
        if encoder.id != encoder_id:
            raise ClusterError(f"The encoder {name} is {encoder.id} here, not {encoder_id}.")
        self._embed = SegmentEncoder(encoder, precision)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        [step] = batch["step"]
        if not isinstance(step.result, ReadFile):
            return {"step": [step]}
        embeddings = tuple(self._embed(step.result.segments))
        segments = tuple(replace(segment, pixels=_NO_PIXELS) for segment in step.result.segments)
        result = replace(step.result, segments=segments)
        return {"step": [replace(step, result=result, embeddings=embeddings, notices=tuple(self._embed.notices))]}


def _in_order(steps: Iterator[_Step]) -> Iterator[_Step]:
    """Yields the steps of each file in order; a step that comes early waits for its turn."""
    early: dict[tuple[int, int], _Step] = {}
    turns: dict[int, int] = {}
    for step in steps:
        early[step.file, step.number] = step
        while (turn := (step.file, turns.get(step.file, 0))) in early:
            turns[step.file] = turn[1] + 1
            yield early.pop(turn)

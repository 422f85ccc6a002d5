"""Reading and embedding on a Ray cluster, through Ray Data: readers and encoders are scaled, and placed, by themselves.

Readers are tasks of a CPU each. Encoders are actors, one a GPU, or where there are none one for every four CPUs. What
waits between the two is bounded by Ray's object store. The rows are written by whoever started the run, so that they
are the same, and as safe, as on one machine. Every machine reads the videos under the same paths.
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
from dits.index.adding.local import Done
from dits.index.adding.reader import ReadFile, ReadJob, read_files
from dits.index.cluster import living, reason_of
from dits.index.scan import shown

_MAX_TASKS = 10_000
_BYTES_A_BLOCK = 16 * 2**20  # that readers hand over at once: a job's pixels
_CPUS_AN_ENCODER = 4
_BYTES_A_READER = 2**28  # of memory; what encoders ask for differs, so that Ray Data does not make one of the two
_NO_PIXELS = np.empty(0, np.uint8)
_SECONDS_TO_LOOK = 120


@dataclass(frozen=True)
class _Step:
    """A job that is done, and where it belongs: `file` counts the files of the run, `number` the jobs of a file."""

    file: int
    number: int
    job: ReadJob
    result: ReadFile | str
    embeddings: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    notices: tuple[str, ...] = ()


class RayWork:
    """See `dits.index.adding.local.Work`."""

    def __init__(self, ray: Any, name: str, encoder: OpenClipEncoder, config: AddConfig, encoders: int = 0) -> None:
        """Nothing is started yet.

        Args:
            ray: Ray's module, connected.
            name: of the encoder, see `dits.encoders.openclip.load_encoder`; every machine loads it.
            encoder: the same, loaded here.
            config: `workers` are readers on the whole cluster; 0 is as many as there is room for.
            encoders: how many; 0 is one a GPU, or one for every four CPUs.
        """
        self._ray, self._name, self._encoder, self._config, self._encoders = ray, name, encoder, config, encoders
        SegmentEncoder(encoder, config.precision)  # says what cannot be before anything starts
        self._notices: dict[str, None] = {}

    @property
    def notices(self) -> Sequence[str]:
        """See `Work`."""
        return list(self._notices)

    def do(self, jobs: Sequence[ReadJob], refused: set[bytes], tick: Callable[[], None]) -> Generator[Done]:
        """See `Work`. Copies are embedded like their originals, and then found out.

        Raises:
            ClusterError: a machine does not find the videos or the encoder, or the cluster fails.
        """
        if not jobs:
            return
        try:
            self._look_everywhere(jobs[0].path)
            for step in _in_order(row["step"] for row in self._dataset(jobs).iter_rows()):
                self._notices.update(dict.fromkeys(step.notices))
                tick()
                yield step.job, step.result, step.embeddings
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"The cluster failed, and what was embedded is stored: {reason_of(error)}.") from error

    def _dataset(self, jobs: Sequence[ReadJob]) -> Any:
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it says how it works, and progress is told elsewhere
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = _BYTES_A_BLOCK
        gpus, cpus = sum(living(ray, "GPU")), sum(living(ray, "CPU"))
        share = min(1.0, cpus / 2)  # a reader and an encoder fit on any cluster
        encoders = self._encoders or int(gpus or max(1, cpus // _CPUS_AN_ENCODER))
        numbered = [{"file": file, "job": job} for file, job in enumerate(jobs)]
        return (
            ray.data.from_items(numbered, override_num_blocks=min(len(jobs), _MAX_TASKS))
            .map_batches(
                _read,
                fn_kwargs={"seconds": self._config.seconds},
                batch_size=1,
                num_cpus=share,
                memory=_BYTES_A_READER,
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

    def _look_everywhere(self, path: bytes) -> None:
        """Raises ClusterError where a machine does not find the first video."""
        ray = self._ray
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        look = ray.remote(num_cpus=0)(os.path.lexists)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        looks = [look.options(scheduling_strategy=pinned(node["NodeID"], soft=False)).remote(path) for node in nodes]
        for node, found in zip(nodes, ray.get(looks, timeout=_SECONDS_TO_LOOK), strict=True):
            if not found:
                raise ClusterError(
                    f"The machine {node['NodeManagerAddress']} has no file {shown(path)}: videos lie on storage that "
                    "every machine mounts under the same path."
                )


def _read(batch: dict[str, np.ndarray], seconds: float) -> Iterator[dict[str, list[Any]]]:
    """Reads a file job by job, in one expendable process, as `read_files` does on one machine."""
    [file], [job] = batch["file"], batch["job"]
    for number, (done, result) in enumerate(read_files([job], 1, seconds, set())):
        yield {"step": [_Step(int(file), number, done, result)]}


class _Encode:
    """Embeds what was read, and lets go of the pixels."""

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
        bare = tuple(replace(segment, pixels=_NO_PIXELS) for segment in step.result.segments)
        result = replace(step.result, segments=bare)
        return {"step": [replace(step, result=result, embeddings=embeddings, notices=tuple(self._embed.notices))]}


def _in_order(steps: Iterator[_Step]) -> Iterator[_Step]:
    """The steps of each file in their order; one that comes early is held until its turn."""
    early: dict[tuple[int, int], _Step] = {}
    turns: dict[int, int] = {}
    for step in steps:
        early[step.file, step.number] = step
        while (turn := (step.file, turns.get(step.file, 0))) in early:
            turns[step.file] = turn[1] + 1
            yield early.pop(turn)

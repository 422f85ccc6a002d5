"""Search of large indexes on a CPU, and how fast they are filled: `make bench`.

Measurements, not assertions, on synthetic embeddings (see `tests.benchmarks.synthetic`). A million videos take 30 GB of
disk and half an hour: `make bench-index` measures them too, and writes reports/index.
"""

import os

import numpy as np
import pytest
import torch

from dits.common.processes import default_workers
from dits.encoders.openclip import load_encoder
from dits.index.adding.config import AddConfig
from dits.index.adding.reader import ReadJob, read_file
from dits.index.adding.run import add_videos
from dits.index.store import VideoIndex
from dits.search.loading import load_engine
from dits.video.segments import Segmenting
from tests.benchmarks import index_measures as measures
from tests.benchmarks.index_memory import measure as measure_memory
from tests.benchmarks.test_joint_speed import process_seconds, seconds

pytestmark = pytest.mark.benchmark

CLIPS, ROUNDS = 24, 3


@pytest.fixture(scope="module", params=[10_000, 100_000])
def location(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITS_CACHE", str(folder / "cache"))
        made = measures.make(folder / "index", request.param)
        yield folder / "index", made


@pytest.mark.parametrize("method", measures.METHODS)
def test_one_query_of_an_index(benchmark, location, method):
    """Text encoding, sampler and exact scores. Promise: under 60 ms of 10,000 videos, under 600 ms of 100,000."""
    path, made = location
    engine = load_engine(str(path), methods=[method])
    texts = measures.queries()
    benchmark.pedantic(lambda: engine.search(next(texts), method, 10), rounds=15, warmup_rounds=2)
    benchmark.extra_info |= {"making_seconds": made, "parts": measures.query_times(engine, method, 15)}


def test_from_a_start_to_the_first_answer(benchmark, location):
    """Everything is already cached. Promise: 100,000 videos within 5 seconds."""
    walls = []
    benchmark.pedantic(lambda: walls.append(measures.start(location[0])), rounds=3)
    benchmark.extra_info["seconds_and_seconds_of_all_cores"] = walls


def test_adding_against_encoding_alone(benchmark, demo, tmp_path):
    """Demo clips through the bundled encoder, from files into an index and from ready tensors in turn.

    Promise: decoding plus encoding reaches at least 85 % of the encoder's own throughput. The share is the median over
    rounds, each of which measures both.
    """
    encoder = load_encoder()
    paths = [clip.path for clip in demo.clips[:CLIPS]]
    pixels = [_read(path, encoder) for path in paths]
    shares = []

    def encode():
        for of_clip in pixels:
            encoder.encode_pixels(of_clip)

    def add(number):
        index = VideoIndex.create(str(tmp_path / f"index-{number}"), encoder)
        report = add_videos(index, encoder, list(map(str, paths)), AddConfig("whole"))
        assert report.segments == CLIPS

    encode()
    for number in range(ROUNDS):
        alone = seconds(encode)
        shares.append(alone / seconds(lambda n=number: add(n)))
    benchmark.pedantic(encode, rounds=1)
    benchmark.extra_info |= {
        "share": float(np.median(shares)),
        "workers": default_workers(),
        "clips_a_second_encoding_alone": CLIPS / alone,
        "share_of_this_process's_seconds": process_seconds(encode) / process_seconds(lambda: add(ROUNDS)),
    }


def test_memory_while_clips_are_added(benchmark, tmp_path):
    """Promise: flat. `python -m tests.benchmarks.index_memory` measures 10,000 clips."""
    benchmark.extra_info |= benchmark.pedantic(measure_memory, (tmp_path, 1000, 1), rounds=1)


def _read(path, encoder):
    """A clip's frames as a worker reads them, (1, F, 3, H, W)."""
    stat = os.stat(path)
    job = ReadJob(os.fsencode(path), stat.st_size, stat.st_mtime_ns, Segmenting.parse("whole"), encoder.transform, 12)
    return torch.from_numpy(read_file(job).segments[0].pixels)[None]

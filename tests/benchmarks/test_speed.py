"""What the project promises about speed, measured on this machine: `make bench`.

Measurements, not assertions; the scorer's ratio is taken within one run.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dits.encoders.openclip import BUNDLED_FOLDER, load_encoder
from dits.models.pooling import PoolingConfig, XPool
from dits.scoring.exact import ExactScorer
from dits.search.engine import SearchEngine
from tests.conftest import first_answer, serve
from tests.helpers.plain import xpool_similarity

pytestmark = pytest.mark.benchmark

SENTENCE = "a white dragon breathes fire over a city at night"
TEXTS, VIDEOS, FRAMES, DIM = 1000, 1000, 12, 512


@pytest.fixture(scope="module")
def pooling():
    torch.manual_seed(0)
    module = XPool(PoolingConfig()).eval()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator) for shape in ((TEXTS, DIM), (TEXTS, DIM), (VIDEOS, FRAMES, DIM))]


def test_one_query_in_the_library(benchmark, engine):
    """Text encoding, sampler and exact scores over the demo corpus, one method. Promise: median under 100 ms."""
    methods = {"dits": engine.methods["dits"]}
    alone = SearchEngine(engine.corpus, engine.encoder, engine.embeddings, methods)
    benchmark(alone.search, SENTENCE, "dits", 5)


def test_one_query_with_all_methods(benchmark, engine):
    """The search of the page: three rankings of one query."""
    benchmark(engine.search_all, SENTENCE, 8)


def test_text_encoding(benchmark):
    """Promise: under 20 ms."""
    encoder = load_encoder(device="cpu")
    benchmark(encoder.encode_text, [SENTENCE])


def test_twelve_frames(benchmark):
    """Promise: under 400 ms."""
    encoder = load_encoder(device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, size=(12, 260, 260, 3), dtype=np.uint8)
    inputs = encoder.preprocess(frames)[None]
    benchmark(encoder.encode_frames, inputs)
    benchmark.extra_info["weights_megabytes"] = (BUNDLED_FOLDER / "open_clip_model.safetensors").stat().st_size / 1e6


@pytest.mark.benchmark(group="1000 x 1000 pairs")
def test_all_pairs_with_the_exact_scorer(benchmark, pooling, pairs):
    """Preparing the videos included. Promise: at least 20 times faster than the plain module, in one run."""
    texts, aligned, frames = pairs
    scorer = ExactScorer(pooling)
    scores = benchmark(lambda: scorer.scores(texts, aligned, scorer.prepare(frames)))
    with torch.inference_mode():
        plain = xpool_similarity(pooling, texts[:20], aligned[:20], frames)
    benchmark.extra_info["largest_difference"] = float((scores[:20] - plain).abs().max())


@pytest.mark.benchmark(group="1000 x 1000 pairs")
def test_all_pairs_with_the_plain_module(benchmark, pooling, pairs):
    """The definition, in blocks of 50 texts so that it fits into memory."""
    texts, aligned, frames = pairs

    @torch.inference_mode()
    def score():
        blocks = [slice(i, i + 50) for i in range(0, TEXTS, 50)]
        return torch.cat([xpool_similarity(pooling, texts[b], aligned[b], frames) for b in blocks])

    benchmark.pedantic(score, rounds=2)


def test_memory_of_the_exact_scorer(benchmark):
    """Peak memory above the inputs at 1,000 x 1,000 x 12, in a process of its own. Promise: at most 200 MB."""
    program = (
        "import torch\n"
        "from dits.models.pooling import PoolingConfig, XPool\n"
        "from dits.scoring.exact import ExactScorer\n"
        "scorer = ExactScorer(XPool(PoolingConfig()).eval())\n"
        "small = torch.randn(8, 12, 512); scorer.scores(small[:, 0], small[:, 0], scorer.prepare(small))\n"
        "t, f = torch.randn(1000, 512), torch.randn(1000, 12, 512)\n"
        "def memory(name):\n"
        "    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith(name))\n"
        "open('/proc/self/clear_refs', 'w').write('5')  # reset the peak: importing torch has one too\n"
        "before = memory('VmRSS')\n"
        "scorer.scores(t, t, scorer.prepare(f))\n"
        "print(memory('VmHWM') - before)\n"
    )
    command = [sys.executable, "-c", program]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ), rounds=1
    )
    benchmark.extra_info["megabytes_above_inputs"] = int(done.stdout) / 1024


def test_one_query_through_the_apps_api(benchmark, served):
    """gradio_client to the running app. Promise: median under 300 ms."""
    benchmark(served.predict, query=SENTENCE, method="dits", top=5, api_name="/search")


def test_first_answer_after_a_start(benchmark, demo):
    """From `python app.py` to the first ranking, the clips being built. Promise: within 20 seconds."""
    processes = []

    def start():
        process, url = serve()
        processes.append(process)
        first_answer(url)

    benchmark.pedantic(start, rounds=1)
    for process in processes:
        process.terminate()
        process.wait(timeout=20)

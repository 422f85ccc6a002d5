"""The analysis at the sizes promised: `make bench`.

Random pairs in a separate process, to measure its peak memory. Promise for 10,000 pairs: all measures in under a
minute on two cores, within 2 GB. 100,000 pairs are possible, because quadratic measures are sampled. CPU seconds are
reported too: they do not depend on other processes that share the machine.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark

PROGRAM = """
import json, resource, sys, time
import torch
from analysis.measures.gap import gap_measures
from analysis.measures.bootstrap import gap_intervals

pairs, captions = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
videos = torch.randn(pairs // captions, 512).repeat_interleave(captions, 0)
texts = videos + torch.randn(pairs, 512) + 0.5 * torch.randn(512)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
report = {"threads": torch.get_num_threads(), "megabytes_before": peak()}
for name, measure in (("measures", gap_measures), ("intervals", gap_intervals)):
    start, start_cpu = time.perf_counter(), time.process_time()
    measure(texts, videos)
    report[f"{name}_seconds"] = round(time.perf_counter() - start, 2)
    report[f"{name}_seconds_of_all_cores"] = round(time.process_time() - start_cpu, 2)
    report[f"{name}_megabytes_peak"] = peak()
print(json.dumps(report))
"""

WHOLE = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from analysis.features import read_features
from analysis.measures.analysis import analyse

pairs, steps, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
rng = np.random.default_rng(0)
videos = rng.standard_normal((pairs, 512), dtype=np.float32)
texts = videos + rng.standard_normal((pairs, 512), dtype=np.float32) + 0.5
trajectories = np.stack([texts + np.float32(0.3 * step) * (videos - texts) for step in range(steps)])
np.savez(path, text=texts, video=videos, text_steps=trajectories)
del videos, texts, trajectories
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
report = {"megabytes_before": peak()}
start, start_cpu = time.perf_counter(), time.process_time()
analysis = analyse([read_features(path)]).as_dict()
report["seconds"] = round(time.perf_counter() - start, 2)
report["seconds_of_all_cores"] = round(time.process_time() - start_cpu, 2)
report["megabytes_peak"] = peak()
report["sampled"] = analysis["sampled"]
print(json.dumps(report))
"""


def in_a_process(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(("pairs", "captions"), [(10_000, 1), (10_000, 5), (100_000, 10)])
def test_gap_measures_and_intervals(benchmark, pairs, captions):
    """The benchmark's own time includes starting Python; the report's numbers do not."""
    benchmark.extra_info |= benchmark.pedantic(in_a_process, (PROGRAM, pairs, captions), rounds=1)


@pytest.mark.parametrize(("pairs", "steps"), [(10_000, 1), (10_000, 2), (100_000, 1)])
def test_a_whole_analysis(benchmark, tmp_path, pairs, steps):
    """From a file of embeddings to the report's numbers: gap and intervals, retrieval, trajectories, the closed gap."""
    benchmark.extra_info |= benchmark.pedantic(in_a_process, (WHOLE, pairs, steps, tmp_path / "f.npz"), rounds=1)

"""The gap measures at the sizes promised: `make bench`.

Random pairs in a process of its own, so that its peak memory is its own. Promise for 10,000 pairs: all measures in
under a minute on two cores, within 2 GB; 100,000 pairs are possible, by sampling where a measure is quadratic. The
seconds of all cores together stand beside the time: where other processes share the machine, they say what it would
take alone.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark

PROGRAM = """
import json, resource, sys, time
import torch
from analysis.gap import gap_measures
from analysis.bootstrap import gap_intervals

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


@pytest.mark.parametrize(("pairs", "captions"), [(10_000, 1), (10_000, 5), (100_000, 10)])
def test_gap_measures_and_intervals(benchmark, pairs, captions):
    """The benchmark's own time includes starting Python; the report's numbers do not."""

    def measure():
        command = [sys.executable, "-c", PROGRAM, str(pairs), str(captions)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    benchmark.extra_info |= benchmark.pedantic(measure, rounds=1)

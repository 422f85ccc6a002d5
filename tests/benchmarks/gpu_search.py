"""Exact search of a million videos on one GPU: `make bench-gpu`, or `python -m tests.benchmarks.gpu_search`.

Promise: one query takes at most 1.7 times as long as reading the videos' bytes at the measured copy bandwidth, and a
batch of 64 queries has at least 10 times the rate of single queries.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dits.models.pooling import PoolingConfig, XPool
from dits.scoring.exact import ExactScorer, PreparedVideos
from tests.helpers.plain import xpool_similarity

FRAMES, DIM, BATCH, BEST = 12, 512, 64, 10
_DISTINCT = 1000
_CHECKED = 50
_COPIED = 2**30


@dataclass(frozen=True)
class GpuReport:
    """Results of the benchmark.

    Attributes:
        device: the GPU.
        videos: number of videos, each of twelve frames in float16.
        gigabytes: read by one query.
        copy_gigabytes_per_second: sum of reads and writes while a gigabyte is copied on the device.
        reading_seconds: bytes of the videos divided by that bandwidth.
        one_query_seconds, batch_seconds: median times of the ten best of all videos, for one query and for 64.
        times_reading: time of one query divided by `reading_seconds`. Promise: at most 1.7.
        times_the_rate: queries per second of the batch divided by those of single queries. Promise: at least 10.
        largest_difference: of the scores from those of the plain definition in float32.
    """

    device: str
    videos: int
    gigabytes: float
    copy_gigabytes_per_second: float
    reading_seconds: float
    one_query_seconds: float
    batch_seconds: float
    times_reading: float
    times_the_rate: float
    largest_difference: float


def main(arguments: list[str] | None = None) -> int:
    """Print a report as JSON; return 2 if there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_search", description=__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("PyTorch finds no GPU: run this on a machine with one.", file=sys.stderr)
        return 2
    print(json.dumps(measure(torch.device("cuda"), args.videos, args.rounds).__dict__, indent=1))
    return 0


@torch.inference_mode()
def measure(device: torch.device, videos: int, rounds: int, copied: int = _COPIED) -> GpuReport:
    """Measure on a device, with a thousand distinct videos repeated in its memory.

    Args:
        copied: bytes that are copied to measure the bandwidth.
    """
    torch.manual_seed(0)
    pooling = XPool(PoolingConfig()).eval()
    for parameter in pooling.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    texts, aligned = torch.randn(2, BATCH, DIM)
    frames = torch.randn(min(_DISTINCT, videos), FRAMES, DIM).half()
    checked = frames[:_CHECKED].float()
    expected = xpool_similarity(pooling, texts, aligned, checked)
    scorer = ExactScorer(pooling.to(device))
    distinct = scorer.prepare(frames.to(device))
    texts, aligned = texts.to(device), aligned.to(device)
    prepared = distinct[torch.arange(videos, device=device) % len(distinct)]
    largest = (scorer.scores(texts, aligned, prepared[:_CHECKED]).cpu() - expected).abs().max()
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * copied / _median(lambda: target.copy_(source), device, rounds)
    one = _median(lambda: scorer.top(texts[:1], aligned[:1], prepared, BEST), device, rounds)
    batch = _median(lambda: scorer.top(texts, aligned, prepared, BEST), device, max(2, rounds // 4))
    read = _bytes(prepared)
    return GpuReport(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        videos=videos,
        gigabytes=read / 1e9,
        copy_gigabytes_per_second=bandwidth / 1e9,
        reading_seconds=read / bandwidth,
        one_query_seconds=one,
        batch_seconds=batch,
        times_reading=one / (read / bandwidth),
        times_the_rate=BATCH * one / batch,
        largest_difference=float(largest),
    )


def _bytes(videos: PreparedVideos) -> int:
    arrays = (videos.frames, videos.inverse_deviations, videos.grams)
    return sum(array.numel() * array.element_size() for array in arrays)


def _median(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median seconds, without the first run."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


if __name__ == "__main__":
    sys.exit(main())

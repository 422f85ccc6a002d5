"""Exact search of a million videos on one GPU: `make bench-gpu`, or `python -m tests.benchmarks.gpu_search`.

Promise: one query takes at most 1.7 times what reading the videos' bytes takes at the measured copy bandwidth, and 64
queries at once are answered at 10 times the rate of single ones or more.
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
    """What was measured.

    Attributes:
        device: the GPU.
        videos: how many, of twelve frames of float16.
        gigabytes: what one query reads of them.
        copy_gigabytes_per_second: read and written, while a gigabyte is copied on the device.
        reading_seconds: the videos' bytes over that.
        one_query_seconds, batch_seconds: medians of the ten best of all videos, of one query and of 64.
        times_reading: one query over reading. Promise: at most 1.7.
        times_the_rate: queries a second of the batch over those of single queries. Promise: at least 10.
        largest_difference: of scores from those of the plain definition in float32.
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
    """Prints a report as JSON; 2 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_search", description=__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use here: run this on a machine with one.", file=sys.stderr)
        return 2
    print(json.dumps(measure(torch.device("cuda"), args.videos, args.rounds).__dict__, indent=1))
    return 0


@torch.inference_mode()
def measure(device: torch.device, videos: int, rounds: int, copied: int = _COPIED) -> GpuReport:
    """Measures on a device; a thousand distinct videos are repeated in its memory, all of which is read.

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
    """Seconds, after one run that is not counted."""
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

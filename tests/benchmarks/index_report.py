"""Measures search of large indexes and writes reports/index: `make bench-index`.

The indexes stay in a folder: a million videos take 13 GB for the table and 18 GB for the cache.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from dits.common.files import write_json
from dits.search.candidates import CANDIDATES
from dits.search.loading import load_engine
from tests.benchmarks import index_measures as measures

REPORT = Path(__file__).resolve().parents[2] / "reports" / "index" / "results.json"


def main() -> None:
    """Measure the given sizes and update the report; the results of other sizes stay."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.index_report", description=__doc__)
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/index-bench"))
    parser.add_argument("--methods", nargs="+", default=list(measures.METHODS))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--recall", action="store_true", help="also measure the recall: minutes per million videos")
    args = parser.parse_args()
    os.environ["DITS_CACHE"] = str(args.folder.resolve() / "cache")
    for videos in args.videos:
        found = measure(args.folder / f"index-{videos}", videos, tuple(args.methods), args.rounds, args.recall)
        report = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.exists() else {}
        of_size = report.setdefault("videos", {}).get(str(videos), {})
        report["videos"][str(videos)] = of_size | found
        write_json(REPORT, report)
        print(json.dumps(found, indent=1))


def measure(location: Path, videos: int, methods: tuple[str, ...], rounds: int, with_recall: bool) -> dict[str, Any]:
    """Measure one size: creation, starts, queries and candidates."""
    location.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "command": f"python -m tests.benchmarks.index_report --videos {videos}{' --recall' if with_recall else ''}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}",
        "load before": os.getloadavg()[0],
        "making seconds": measures.make(location, videos),
        "start": [
            {"seconds": round(seconds, 1), "all cores": round(of_all, 1)}
            for seconds, of_all in (measures.start(location) for _ in range(3))
        ],
    }
    engine = load_engine(str(location), methods=methods)
    result["milliseconds"] = {method: measures.query_times(engine, method, rounds) for method in methods}
    result["load after"] = os.getloadavg()[0]
    if engine.search("a dog", methods[0]).exact:
        return result
    result["candidates"] = CANDIDATES
    return result | ({"recall": measures.recall_of(location)} if with_recall else {})


if __name__ == "__main__":
    main()

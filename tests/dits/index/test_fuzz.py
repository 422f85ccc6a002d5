"""Hundreds of damaged videos: each is decoded or has its reason, in time, and good files beside it stay the same."""

import os
import random
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dits.encoders.transforms import FrameTransform
from dits.index.adding.reader import ReadFile, ReadJob, read_file
from dits.video.segments import Segmenting
from dits.video.workers import MAX_BYTES, WorkerFailure, run_in_workers
from tests.fixtures.hostile_items import measured
from tests.helpers.videos import stamp, write_video

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "600"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 60.0
EVERY = 25  # damaged files, then one undamaged file

TRANSFORM = FrameTransform({"size": 64, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"})
BOXES = re.compile(
    rb"stts|stsc|stsz|stco|stss|ctts|mdhd|tkhd|mvhd|elst|avc1|avcC|esds|trun|tfhd|moov|mdat|avih|strh|strf"
)


def flipped(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 4, 16, 256])):
        data[rng.randrange(len(data))] = rng.randrange(256)


def swapped(data: bytearray, rng: random.Random) -> None:
    size = min(rng.choice([16, 512, 4096]), len(data) // 4)
    a, b = (rng.randrange(len(data) - size) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def truncated(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def with_zeros(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = bytes(rng.choice([1, 7, 64, 5000]))


def erased(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    size = min(len(data) - at, rng.choice([64, 1000, 20000]))
    data[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])


def in_headers(data: bytearray, rng: random.Random) -> None:
    """A box's size, or a number in it, says something else; elsewhere in the first kilobyte."""
    found = [match.start() for match in BOXES.finditer(bytes(data))]
    for _ in range(rng.choice([1, 2, 5])):
        at = rng.choice(found) + rng.randrange(-4, 60) if found else rng.randrange(1000)
        at = max(0, min(at, len(data) - 4))
        number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16, rng.randrange(2**32), 0x40004000, 0x7FFF7FFF])
        data[at : at + 4] = struct.pack(">I", number)


def spliced(data: bytearray, rng: random.Random) -> None:
    """A part of it again, elsewhere."""
    size = min(rng.choice([100, 5000, 50000]), len(data) // 2)
    source, at = rng.randrange(len(data) - size), rng.randrange(len(data))
    data[at:at] = data[source : source + size]


KINDS = [flipped, swapped, truncated, with_zeros, erased, in_headers, in_headers, spliced]


@pytest.fixture(scope="module")
def originals(tmp_path_factory, demo) -> list[Path]:
    folder = tmp_path_factory.mktemp("originals")
    images = [stamp(n, 96, 64) for n in range(24)]
    written = [
        write_video(folder / "h264.mkv", images),
        write_video(folder / "vp8.webm", images, codec="libvpx"),
        write_video(folder / "vp9.webm", images, codec="libvpx-vp9"),
        write_video(folder / "mpeg4.avi", images, codec="mpeg4"),
        write_video(folder / "h264.ts", images),
        write_video(folder / "mjpeg.avi", images, codec="mjpeg", options={"strict": "unofficial"}),
        write_video(folder / "mpeg2.mpg", images, codec="mpeg2video", fps=25),
        write_video(folder / "fragments.mp4", images, muxer={"movflags": "frag_keyframe+empty_moov"}),
        write_video(folder / "open gop.mp4", images, options={"x264-params": "open-gop=1"}),
        write_video(folder / "flash.flv", images, codec="flv"),
    ]
    clips = sorted({clip.path for clip in demo.clips if clip.path.suffix == ".mp4"}, key=lambda p: p.stat().st_size)
    return written + clips[: 3 * len(written) : 3]


@pytest.mark.slow
def test_damaged_videos_are_decoded_or_have_a_reason(originals, tmp_path, capsys):
    expected = {path: read_file(job_of(path)) for path in originals}
    assert all(isinstance(result, ReadFile) and result.segments for result in expected.values())
    pending: dict[bytes, tuple[str, Path]] = {}

    def jobs() -> Iterator[ReadJob]:
        for number in range(MUTATIONS):
            rng = random.Random(SEED * 1_000_003 + number)
            source, kinds = rng.choice(originals), rng.choices(KINDS, k=rng.choice([1, 1, 2, 3]))
            data = bytearray(source.read_bytes())
            for kind in kinds:
                kind(data, rng)
            path = tmp_path / f"{number}{source.suffix}"
            path.write_bytes(data)
            pending[os.fsencode(path)] = ("+".join(kind.__name__ for kind in kinds), source)
            yield job_of(path, rng.choice(["whole", "whole", "0.5s", "scenes"]))
            if number % EVERY == 0:
                yield job_of(source)

    items = jobs()
    slowest = most = 0.0
    outcomes, odd, good = Counter(), [], 0
    for job, answer in run_in_workers(measured, lambda: next(items, None), 2, lambda job: SECONDS):
        assert isinstance(answer, WorkerFailure) or answer[1] < SECONDS + 1
        if not isinstance(answer, WorkerFailure):
            slowest, most = max(slowest, answer[1]), max(most, answer[2])
        if job.path not in pending:
            good += 1
            assert_same(answer[0], expected[Path(os.fsdecode(job.path))])
            continue
        outcome = outcome_of(job, answer)
        outcomes[outcome] += 1
        if isinstance(answer, WorkerFailure):
            odd.append((os.path.basename(job.path).decode(), *pending[job.path], outcome))
        else:
            os.remove(job.path)
    with capsys.disabled():
        print(
            f"\n{sum(outcomes.values())} damaged, {good} good; slowest {slowest:.1f} s, memory {most / 2**30:.2f} GiB"
        )
        print("\n".join(f"{count:5} {outcome}" for outcome, count in outcomes.most_common()))
        print("\n".join(map(str, odd)))
    assert sum(outcomes.values()) == MUTATIONS
    assert outcomes["decoded"] > MUTATIONS / 10  # damage is often survived
    assert most <= MAX_BYTES


def job_of(path: Path, segmenting: str = "whole") -> ReadJob:
    found = path.stat()
    return ReadJob(os.fsencode(path), found.st_size, found.st_mtime_ns, Segmenting.parse(segmenting), TRANSFORM, 12)


def outcome_of(job: ReadJob, answer: WorkerFailure | tuple) -> str:
    if isinstance(answer, WorkerFailure):
        return "took too long" if answer.timed_out else "ended its process"
    result = answer[0]
    if isinstance(result, ReadFile):
        assert result.segments
        assert all(segment.pixels.shape == (12, 3, 64, 64) for segment in result.segments)
        assert all(np.isfinite(segment.times).all() for segment in result.segments)
        return "decoded"
    assert result.endswith(".")
    assert "\n" not in result
    return re.sub(r"\d[\d,.]*", "N", result.replace(os.fsdecode(job.path), "It"))


def assert_same(result: ReadFile, expected: ReadFile) -> None:
    for segment, other in zip(result.segments, expected.segments, strict=True):
        np.testing.assert_array_equal(segment.pixels, other.pixels)

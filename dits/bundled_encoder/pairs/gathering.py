"""Gathering pairs: read the sources, leave out pairs too close to held-out clips, and write shards."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dits.bundled_encoder.pairs.drawings import HELD_OUT_STAMPS
from dits.bundled_encoder.pairs.near_duplicates import NearDuplicates, to_rgb
from dits.bundled_encoder.pairs.shards import Pair, open_picture, write_shards
from dits.bundled_encoder.pairs.sources import SOURCES
from dits.common.errors import PairsError, require
from dits.corpora.corpus import FRAMES, Corpus
from dits.corpora.demo import build_demo
from dits.video.sampling import sample_frames

Report = Callable[[str], None]


def prepare_pairs(folder: Path, sources: Sequence[str], root: Path, report: Report) -> dict[str, Any]:
    """Gathers the pairs of sources into shards in `folder`, and returns the index with its counts.

    Pairs that show a validation or test clip of the demo corpus are left out: files made by the same template, and
    pictures close to a frame of a clip by perceptual hash (dits.bundled_encoder.pairs.near_duplicates). The stamps of
    the zero-shot test are written, and left out in training (dits.bundled_encoder.data).

    Args:
        folder: the folder to write.
        sources: names of SOURCES, in the order of writing.
        root: the root folder of the Debian packages.

    Raises:
        InputError: a source is unknown, or there is none.
        PairsError: a package is missing or of another release, or a picture cannot be read.
        CorpusError, VideoError: the demo corpus cannot be built or read.
        StorageError: the folder cannot be written.
    """
    require(bool(sources), "Name at least one source.")
    for name in sources:
        require(name in SOURCES, f"There is no source '{name}': choose from {', '.join(SOURCES)}.")
    for name in sources:  # finds a missing package before the long work starts
        SOURCES[name].check(root)
    report("Hashing the held-out clips of the demo corpus.")
    corpus = build_demo()
    filter_ = _Filter(corpus)
    facts: dict[str, Any] = {"held_out": {"stamps": list(HELD_OUT_STAMPS)}, "sources": filter_.counts}
    return write_shards(folder, _gather(sources, root, filter_, report), facts)


class _Filter:
    """Decides which pairs may be trained on, and counts them by source."""

    def __init__(self, corpus: Corpus) -> None:
        held_out = [clip for clip in corpus if clip.split != "train"]
        self.templates = {template_of(name) for clip in held_out for name in (clip.id, clip.group)}
        self.near = NearDuplicates(
            Image.fromarray(frame) for clip in held_out for frame in sample_frames(clip.path, FRAMES, size=160).frames
        )
        self.counts: dict[str, dict[str, Any]] = {}

    def keeps(self, pair: Pair) -> bool:
        """Whether the pair may be trained on; counts the pair or the reason against it."""
        counts = self.counts_of(pair.source)
        reason = self._reason(pair)
        if reason:
            counts["left_out"][reason] += 1
            return False
        counts["pairs"] += 1
        counts["pictures"] += len(pair.pictures)
        counts["texts"] += len(pair.texts)
        counts["packages"][pair.package] = pair.licence
        return True

    def malformed(self, source: str) -> None:
        """Counts a file of a source that cannot be read."""
        self.counts_of(source)["left_out"]["malformed"] += 1

    def counts_of(self, source: str) -> dict[str, Any]:
        """The counts of a source, all zero at first."""
        return self.counts.setdefault(
            source, {"pairs": 0, "pictures": 0, "texts": 0, "left_out": Counter(), "packages": {}}
        )

    def _reason(self, pair: Pair) -> str | None:
        if pair.source in ("templates", "left-out") and template_of(Path(pair.file).stem) in self.templates:
            return "made by the template of a held-out clip"
        if any(self.near.is_close(to_rgb(open_picture(data, pair.file))) for data in pair.pictures):
            return "close to a held-out clip"
        return None


def template_of(name: str) -> str:
    """The name without the numbers at its end, which are the only difference between variants of a template."""
    return re.sub(r"(-\d+)+$", "", name)


def _gather(sources: Sequence[str], root: Path, filter_: _Filter, report: Report) -> Iterator[Pair]:
    for name in sources:
        for pair in SOURCES[name].gather(root):
            if isinstance(pair, PairsError):
                filter_.malformed(name)
            elif filter_.keeps(pair):
                yield pair
        report(_line(name, filter_.counts_of(name)))


def _line(name: str, counts: dict[str, Any]) -> str:
    left_out = ", ".join(f"{number} {reason}" for reason, number in counts["left_out"].items()) or "none"
    return (
        f"{name}: {counts['pairs']} pairs, {counts['pictures']} pictures, {counts['texts']} texts; left out: {left_out}"
    )

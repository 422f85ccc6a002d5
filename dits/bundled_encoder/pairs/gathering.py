"""Gathering pairs: read the sources, leave out pairs too close to held-out clips, and write shards."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dits.bundled_encoder.pairs.drawings import HELD_OUT_STAMPS
from dits.bundled_encoder.pairs.near_duplicates import NearDuplicates, to_rgb
from dits.bundled_encoder.pairs.shards import LeftOut, Pair, open_picture, write_shards
from dits.bundled_encoder.pairs.sources import SOURCES
from dits.common.errors import require
from dits.corpora.corpus import FRAMES, Corpus
from dits.corpora.demo import build_demo
from dits.video.sampling import sample_frames

Report = Callable[[str], None]


def prepare_pairs(
    folder: Path, sources: Sequence[str], root: Path, report: Report, folders: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """Gathers the pairs of sources into shards in `folder`, and returns the index with its counts.

    Pairs that show a validation or test clip of the demo corpus are left out: files made by the same template, and
    pictures close to a frame of a clip by perceptual hash (dits.bundled_encoder.pairs.near_duplicates). The stamps of
    the zero-shot test are written, and left out in training (dits.bundled_encoder.data).

    What a source leaves out because it is missing or damaged is counted too, and the first of each kind is reported.

    Args:
        folder: the folder to write.
        sources: names of SOURCES, in the order of writing.
        root: the root folder of the Debian packages.
        report: called with a line for each source, and with other sentences.
        folders: by the name of its source, the folder of each data set.

    Raises:
        InputError: a source is unknown, repeated or has no folder, a folder is not used, or there is no source.
        PairsError: a package or a data set is missing or of another release, or a picture cannot be read.
        CorpusError, VideoError: the demo corpus cannot be built or read, or a data set cannot be used.
        StorageError: the folder cannot be written.
    """
    folders = folders or {}
    _check(sources, folders)
    for name in sources:  # finds a missing package before the long work starts
        SOURCES[name].check(root)
    # Data sets read their annotations here, so an unusable one is found before the long work starts too.
    items = {name: SOURCES[name].gather(folders.get(name, root)) for name in sources}
    report("Hashing the held-out clips of the demo corpus.")
    corpus = build_demo()
    filter_ = _Filter(corpus)
    facts: dict[str, Any] = {"held_out": {"stamps": list(HELD_OUT_STAMPS)}, "sources": filter_.counts}
    return write_shards(folder, _gather(items, filter_, report), facts)


def _check(sources: Sequence[str], folders: Mapping[str, Path]) -> None:
    """Raises InputError for sources that cannot be gathered, and for folders of others."""
    require(bool(sources), "Name at least one source.")
    for name in sources:
        require(name in SOURCES, f"There is no source '{name}': choose from {', '.join(SOURCES)}.")
        require(sources.count(name) == 1, f"The source '{name}' is named twice: name it once.")
        flags = SOURCES[name].flags
        has_folder = not flags or name in folders
        require(has_folder, f"The source '{name}' is read from a folder: give it with {' or '.join(flags)}.")
    for name in folders:
        require(name in sources, f"There is a folder for '{name}', which is not among the sources: name it there too.")


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

    def leave_out(self, source: str, reason: str) -> bool:
        """Counts an item of a source that cannot be used; whether it is the first with this reason."""
        counts = self.counts_of(source)["left_out"]
        counts[reason] += 1
        return bool(counts[reason] == 1)

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


def _gather(items: Mapping[str, Iterator[Pair | LeftOut]], filter_: _Filter, report: Report) -> Iterator[Pair]:
    for name, found in items.items():
        for item in found:
            if isinstance(item, LeftOut):
                if filter_.leave_out(name, item.reason):
                    report(f"{name}: left out: {item.sentence}")
            elif filter_.keeps(item):
                yield item
        report(_line(name, filter_.counts_of(name)))


def _line(name: str, counts: dict[str, Any]) -> str:
    left_out = ", ".join(f"{number} {reason}" for reason, number in counts["left_out"].items()) or "none"
    return (
        f"{name}: {counts['pairs']} pairs, {counts['pictures']} pictures, {counts['texts']} texts; left out: {left_out}"
    )

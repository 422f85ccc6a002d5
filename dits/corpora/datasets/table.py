"""The user's own videos: a CSV file with one row per caption."""

import math
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dits.common.errors import CorpusError
from dits.corpora.corpus import SPLITS, read_rows
from dits.corpora.datasets.annotations import Annotations, Entry, check_name, clean
from dits.corpora.datasets.loading import LoadedDataset, locate

_OPTIONAL = ("split", "group", "start", "end")


def load_table(path: Path, root: Path | None = None, *, strict: bool = False) -> LoadedDataset:
    """Load the clips of a CSV file with the columns video and caption, and optionally split, group, start and end.

    A clip is a video, or its segment from `start` to `end` in seconds; it has the captions of all its rows. The default
    split is "test"; by default the segments of a video form a group.

    Args:
        path: the CSV file.
        root: the folder that paths in the column `video` are relative to; by default the folder of the CSV file.
        strict: raise if a video is missing, instead of giving a notice.

    Raises:
        InputError: the file cannot be read, or lacks a column or a value.
        CorpusError: the file has no rows, a path leads out of the folder, rows disagree, or no video exists.
    """
    return locate_table(path, root).required(strict)


def locate_table(path: Path, root: Path | None = None) -> LoadedDataset:
    """Like `load_table`, but without an error if no video exists.

    Raises:
        DitsError: see `load_table`.
    """
    folder = (root or path.parent).absolute()
    return locate(path.stem, f"the table {path.name}", read_captioned_table(path, folder), [folder])


def read_captioned_table(path: Path, root: Path) -> Annotations:
    """The rows of `load_table`, without a search for the videos."""
    entries: dict[str, Entry] = {}
    split_of: dict[str, str] = {}
    for number, row in enumerate(read_rows(path, ("video", "caption")), start=2):
        entry = _entry(row, root, f"{path}, row {number}")
        known = entries.setdefault(entry.id, entry)
        if known is not entry:
            if (known.split, known.group) != (entry.split, entry.group):
                raise CorpusError(f"{path}, row {number}: the rows of {entry.id} disagree on its split or group.")
            entries[entry.id] = replace(known, captions=known.captions + entry.captions)
        if split_of.setdefault(entry.group, entry.split) != entry.split:
            raise CorpusError(f"{path}, row {number}: the group {entry.group} is in two splits.")
    if not entries:
        raise CorpusError(f"{path} holds no videos: give it rows of video, caption.")
    return Annotations(tuple(entries.values()))


def _entry(row: dict[str, str], root: Path, where: str) -> Entry:
    video, caption = _inside(row["video"].strip(), root, where), clean(row["caption"])
    if not caption:
        raise CorpusError(f"{where}: the column 'caption' is empty.")
    optional = {column: (row.get(column) or "").strip() for column in _OPTIONAL}
    split = optional["split"] or "test"
    if split not in SPLITS:
        raise CorpusError(f"{where}: there is no split {split[:60]!r}: choose one of {', '.join(SPLITS)}.")
    start, end = (_seconds(optional[column], f"{where}, column {column}") for column in ("start", "end"))
    if (start or 0.0) >= (math.inf if end is None else end):
        raise CorpusError(f"{where}: the clip ends before it starts.")
    segment = "" if start is None and end is None else f"#t={_plain(start)},{_plain(end)}"  # as in media fragments
    return Entry(video + segment, split, (caption,), (video,), optional["group"] or video, start, end)


def _inside(video: str, root: Path, where: str) -> str:
    """The path of a video relative to the root, which must contain it."""
    path = PurePosixPath(video.replace("\\", "/"))
    if path.is_absolute() and path.is_relative_to(PurePosixPath(root.as_posix())):
        path = path.relative_to(PurePosixPath(root.as_posix()))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CorpusError(
            f"{where}: the path {video[:100]!r} leads out of {root}: move the videos, or a link to them, there."
        )
    for part in path.parts:
        check_name(part, where)
    return path.as_posix()


def _seconds(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise CorpusError(f"{where}: {text[:60]!r} is not a number of seconds.")
    return seconds


def _plain(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.15g}"

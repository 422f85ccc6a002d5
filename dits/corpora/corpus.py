"""A corpus: videos with captions and splits, on disk."""

import csv
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dits.common.errors import CorpusError, InputError
from dits.common.files import reason_of

SPLITS = ("train", "validation", "test")

FRAMES = 12  # embedded frames per video (DITS paper, section 4.1)

Progress = Callable[[int, int], None]
"""Called with the number of clips that are done, and the total."""


@dataclass(frozen=True)
class Clip:
    """A video, or a segment of one.

    Attributes:
        id: its name, unique in the corpus.
        path: its file.
        split: "train", "validation" or "test".
        group: the name of its scene. Near-duplicates share a group, and all clips of a group are in one split.
        captions: sentences that describe it; empty for the user's own videos.
        start: its start in the file, in seconds; None means the start of the file.
        end: its end in the file, in seconds; None, or a value past the end of the file, means the end of the file.
    """

    id: str
    path: Path
    split: str
    group: str
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None

    @property
    def title(self) -> str:
        """The displayed name: the first caption, or else the file name and the segment."""
        if self.captions:
            return self.captions[0]
        name = os.fsencode(self.path.name).decode("utf-8", "replace")
        return name if self.start is None else f"{name}, {_clock(self.start)} to {_clock(self.end)}"


def _clock(seconds: float | None) -> str:
    minutes, seconds = divmod(int(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@dataclass(frozen=True)
class Query:
    """A caption and the id of the video that it describes."""

    video_id: str
    caption: str


@dataclass(frozen=True)
class Corpus:
    """A named, ordered set of clips. `absent` gives, by split, the reason why a split has no clips, if it is known."""

    name: str
    clips: Sequence[Clip]
    absent: Mapping[str, str] = field(default_factory=dict, compare=False)

    def split(self, split: str) -> "Corpus":
        """The clips of one split; "all" gives every clip.

        Raises:
            InputError: the split is unknown or empty.
        """
        if split != "all" and split not in SPLITS:
            raise InputError(f"There is no split '{split}': choose one of {', '.join((*SPLITS, 'all'))}.")
        clips = tuple(clip for clip in self.clips if split in ("all", clip.split))
        if not clips:
            raise InputError(self.absent.get(split, f"The {split} split of corpus '{self.name}' is empty."))
        return Corpus(self.name, clips)

    def queries(self) -> list[Query]:
        """Every caption of every clip."""
        return [Query(clip.id, caption) for clip in self.clips for caption in clip.captions]

    @property
    def ids(self) -> list[str]:
        """The clips' ids, in order."""
        return [clip.id for clip in self.clips]

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    def __len__(self) -> int:
        return len(self.clips)


def read_rows(path: Path, columns: tuple[str, ...], may_be_empty: Collection[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file that must have `columns`, with a value in each of them except `may_be_empty`.

    Raises:
        InputError: the file is missing, is not UTF-8 or lacks a column, or a row lacks a value or has too many.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path} has no column '{missing[0]}': its first line must name {', '.join(columns)}.")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        not_utf8 = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8 text: save it as UTF-8" if not_utf8 else reason_of(error)
        raise InputError(f"Cannot read {path}: {reason}.") from error
    for number, row in enumerate(rows, start=2):
        if any(row.pop(None, [])):  # cells beyond the header
            raise InputError(f"{path}, row {number}: more cells than columns: quote texts that contain a comma.")
        empty = [column for column in columns if column not in may_be_empty and not (row[column] or "").strip()]
        if empty:
            raise InputError(f"{path}, row {number}: the column '{empty[0]}' is empty.")
    return rows


def read_queries(path: Path) -> list[Query]:
    """The queries of a CSV file with the columns video_id and caption.

    Raises:
        InputError: the file cannot be read, lacks a column or a value, or has no rows.
    """
    rows = read_rows(path, ("video_id", "caption"))
    if not rows:
        raise InputError(f"{path} holds no queries: give it rows of video_id, caption.")
    return [Query(row["video_id"].strip(), row["caption"].strip()) for row in rows]


def read_clips(path: Path, folder: Path) -> tuple[Clip, ...]:
    """The clips of a captions file with the columns clip, group, split and caption, in the file's order.

    A clip's video is `folder/<clip>.mp4`.

    Raises:
        InputError: the file cannot be read, lacks a column or a value, or has no rows.
        CorpusError: a clip's name is not a plain file name, a split is unknown, or a clip or a group is in two splits.
    """
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path, ("clip", "group", "split", "caption")):
        grouped.setdefault(row["clip"], []).append(row)
    split_of: dict[str, str] = {}
    clips = []
    for clip_id, rows in grouped.items():
        group, split = rows[0]["group"], rows[0]["split"]
        if Path(clip_id).name != clip_id or clip_id == ".." or "\\" in clip_id:
            raise CorpusError(f"{path}: the clip '{clip_id}' is not a plain file name without folders.")
        if split not in SPLITS:
            raise CorpusError(f"{path}: the clip {clip_id} has the unknown split '{split}'.")
        if any((row["group"], row["split"]) != (group, split) for row in rows):
            raise CorpusError(f"{path}: the rows of clip {clip_id} disagree on its group or split.")
        if split_of.setdefault(group, split) != split:
            raise CorpusError(f"{path}: the group {group} is in two splits.")
        clips.append(Clip(clip_id, folder / f"{clip_id}.mp4", split, group, tuple(r["caption"] for r in rows)))
    if not clips:
        raise InputError(f"{path} lists no clips: give it rows of clip, group, split, caption.")
    return tuple(clips)

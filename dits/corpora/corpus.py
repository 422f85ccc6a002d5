"""A corpus: videos with captions and splits, on disk."""

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dits.common.errors import CorpusError, InputError

SPLITS = ("train", "validation", "test")

FRAMES = 12  # frames of a video that are embedded (DITS paper, section 4.1)


@dataclass(frozen=True)
class Clip:
    """One video, or a part of one.

    Attributes:
        id: its name, unique in the corpus.
        path: its file.
        split: "train", "validation" or "test".
        group: names the scene: near-duplicates share it, and a group never spans two splits.
        captions: what it shows, in sentences; one's own videos have none.
        start: where it begins in the file, in seconds; None is the file's beginning.
        end: where it ends in the file, in seconds; None, or anything past the file's end, is that end.
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
        """What it is called: its first caption, or else its file and the part of it."""
        if self.captions:
            return self.captions[0]
        name = os.fsencode(self.path.name).decode("utf-8", "replace")
        return name if self.start is None else f"{name}, {_clock(self.start)} to {_clock(self.end)}"


def _clock(seconds: float | None) -> str:
    minutes, rest = divmod(int(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass(frozen=True)
class Query:
    """A sentence and the id of the video it describes."""

    video_id: str
    caption: str


@dataclass(frozen=True)
class Corpus:
    """A named, ordered set of clips. `absent` says, by split, why none of its clips is here, where that is known."""

    name: str
    clips: Sequence[Clip]
    absent: Mapping[str, str] = field(default_factory=dict, compare=False)

    def split(self, split: str) -> "Corpus":
        """The clips of one split; "all" gives every clip.

        Raises:
            InputError: no such split, or it is empty.
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
    """The rows of a CSV file that must have `columns`, each with text in every one that may not be empty.

    Raises:
        InputError: the file is missing, not UTF-8, lacks a column, or a row lacks a value or has too many.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path} has no column '{missing[0]}': its first line must name {', '.join(columns)}.")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8 text: save it as UTF-8" if isinstance(error, UnicodeDecodeError) else _reason(error)
        raise InputError(f"Cannot read {path}: {reason}.") from error
    for number, row in enumerate(rows, start=2):
        if any(row.pop(None, [])):  # cells beyond the header's
            raise InputError(f"{path}, row {number}: more cells than columns: quote a text that has a comma.")
        empty = [column for column in columns if column not in may_be_empty and not (row[column] or "").strip()]
        if empty:
            raise InputError(f"{path}, row {number}: the column '{empty[0]}' is empty.")
    return rows


def read_queries(path: Path) -> list[Query]:
    """The queries of a CSV file with the columns video_id and caption.

    Raises:
        InputError: the file cannot be read, lacks a column or a value, or holds no row.
    """
    rows = read_rows(path, ("video_id", "caption"))
    if not rows:
        raise InputError(f"{path} holds no queries: give it rows of video_id, caption.")
    return [Query(row["video_id"].strip(), row["caption"].strip()) for row in rows]


def read_clips(path: Path, folder: Path) -> tuple[Clip, ...]:
    """The clips of a captions file with the columns clip, group, split and caption, in the file's order.

    A clip's video is `folder/<clip>.mp4`.

    Raises:
        InputError: the file cannot be read, lacks a column or a value, or holds no row.
        CorpusError: a clip's name leads out of the folder, a split is unknown, or a clip or a group stands in two.
    """
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path, ("clip", "group", "split", "caption")):
        grouped.setdefault(row["clip"], []).append(row)
    split_of: dict[str, str] = {}
    clips = []
    for clip_id, rows in grouped.items():
        group, split = rows[0]["group"], rows[0]["split"]
        if Path(clip_id).name != clip_id or clip_id == ".." or "\\" in clip_id:
            raise CorpusError(f"{path}: the clip '{clip_id}' is no plain file name, without folders.")
        if split not in SPLITS:
            raise CorpusError(f"{path}: the clip {clip_id} has the unknown split '{split}'.")
        if any((row["group"], row["split"]) != (group, split) for row in rows):
            raise CorpusError(f"{path}: the rows of clip {clip_id} disagree on its group or split.")
        if split_of.setdefault(group, split) != split:
            raise CorpusError(f"{path}: the group {group} stands in two splits.")
        clips.append(Clip(clip_id, folder / f"{clip_id}.mp4", split, group, tuple(r["caption"] for r in rows)))
    if not clips:
        raise InputError(f"{path} lists no clips: give it rows of clip, group, split, caption.")
    return tuple(clips)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()

"""What the annotation files of a benchmark say, read with care: they come from many hands, and ids become file names.

What official files are known to hold (empty captions, videos without any, an id in two splits) is left out and said in
a sentence; what makes a file unusable (no UTF-8, malformed JSON, a missing column, a caption that is no text, an id
that is no file name) raises.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dits.common.errors import CorpusError
from dits.corpora.corpus import SPLITS, read_rows

Captions = dict[str, list[str]]
"""Captions by the video's id, both in the file's order."""

_MAX_NAME_LENGTH = 255  # bytes, of nearly every file system
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class MissingAnnotationsError(CorpusError):
    """An annotation file is not there. The message names it and the folder."""


@dataclass(frozen=True)
class Entry:
    """One video of a benchmark, as the annotations list it.

    Attributes:
        id: the clip's id.
        split: "train", "validation" or "test".
        captions: at least one.
        names: file names to look for, best first, each with or without an extension; "/" parts folders.
        group: as in `dits.corpora.corpus.Clip`.
        start, end: as in `dits.corpora.corpus.Clip`.
    """

    id: str
    split: str
    captions: tuple[str, ...]
    names: tuple[str, ...]
    group: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Annotations:
    """A benchmark's videos.

    Attributes:
        entries: the videos, by split, in the files' order.
        notices: sentences on what is as it is known to be, and worth knowing.
        left_out: sentences on what the files hold and cannot be used.
    """

    entries: tuple[Entry, ...]
    notices: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def annotations_of(
    splits: Mapping[str, Mapping[str, Sequence[str]]],
    notices: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> Annotations:
    """Entries of captions by split and id, each video's file named like its id.

    Empty captions and videos without any are left out. A video that stands in two splits is kept in the later one of
    train, validation and test, so that nothing is trained on that is evaluated.

    Raises:
        CorpusError: an id is no plain file name.
    """
    entries: dict[str, Entry] = {}
    empty = 0
    uncaptioned: list[str] = []
    twice: list[str] = []
    for split in SPLITS:
        for video, sentences in splits.get(split, {}).items():
            check_name(video, f"The {split} annotations")
            captions = tuple(caption for caption in map(clean, sentences) if caption)
            empty += len(sentences) - len(captions)
            if not captions:
                uncaptioned.append(video)
                continue
            if entries.pop(video, None):
                twice.append(video)
            entries[video] = Entry(video, split, captions, (video,), video)
    said: dict[str, int | Sequence[str]] = {
        "empty captions": empty,
        "videos without a caption": uncaptioned,
        "videos that stand in two splits from the earlier one, of train, validation and test": twice,
    }
    return Annotations(tuple(entries.values()), tuple(notices), (*left_out, *left_out_of(said)))


def left_out_of(counts: Mapping[str, int | Sequence[str]]) -> list[str]:
    """A sentence for everything of which there is any, with the first of them where they have names."""
    return [
        f"Left out: {what} ({count if isinstance(count, int) else f'{len(count)}, the first is {count[0]}'})."
        for what, count in counts.items()
        if count
    ]


def hold_out(ids: Iterable[str], most: int) -> set[str]:
    """A validation split where a benchmark has none: `most` of the ids, or a tenth of them if that is less, at least 1.

    Those with the smallest SHA-256 of their id, so that the choice depends on neither a seed nor the order.
    """
    ordered = sorted(set(ids), key=lambda video: hashlib.sha256(video.encode("utf-8", "replace")).digest())
    return set(ordered[: min(most, max(1, len(ordered) // 10))]) if len(ordered) > 1 else set()


def split_off(train: Captions, most: int) -> dict[str, Captions]:
    """Training videos parted into "train" and "validation" by `hold_out`."""
    held = hold_out(train, most)
    return {
        "train": {video: captions for video, captions in train.items() if video not in held},
        "validation": {video: captions for video, captions in train.items() if video in held},
    }


def clean(caption: str) -> str:
    """The caption on one line, as encoders read it: any run of white space and control characters is one space.

    Half characters become "?".
    """
    return " ".join(_CONTROL.sub(" ", caption).encode("utf-8", "replace").decode().split())


def check_name(name: str, where: str) -> None:
    """Refuses what could lead out of the folder of videos, or names no file anywhere.

    Raises:
        CorpusError: the name holds a folder or anything unprintable, or is too long.
    """
    plain = name.strip() == name and name not in ("", ".", "..") and not set(name) & {"/", "\\"}
    if not plain or not name.isprintable() or len(name.encode("utf-8", "replace")) > _MAX_NAME_LENGTH:
        raise CorpusError(f"{where}: the video {name[:100]!r} is no plain file name, without folders.")


# --- Files ---


@dataclass(frozen=True)
class AnnotationFolders:
    """The folders that annotation files may lie in, in the order they are searched."""

    folders: tuple[Path, ...]

    def has(self, *names: str) -> bool:
        """Whether a file of one of the names is there."""
        return any((folder / name).is_file() for folder in self.folders for name in names)

    def find(self, *names: str) -> Path:
        """The first file of one of the names, which are spellings of one.

        Raises:
            MissingAnnotationsError: there is none.
        """
        for folder in self.folders:
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        raise MissingAnnotationsError(f"There is no {names[0]} in {self.folders[0]}.")


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """As `read_rows`, where any value but that of the first column may be empty.

    Raises:
        CorpusError: see `read_rows`; or the file has no rows.
    """
    rows = read_rows(path, columns, may_be_empty=columns[1:])
    if not rows:
        raise CorpusError(f"{path} has no rows: get it again.")
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        CorpusError: it cannot be read, or is not UTF-8.
    """
    # Not splitlines(), which also ends lines at characters that sentences may hold.
    return [line.rstrip("\r") for line in _read_text(path).split("\n") if line.strip()]


def read_json(path: Path, kind: type) -> Any:
    """The value of a JSON file, of which every key stands once in its object.

    Raises:
        CorpusError: it cannot be read, is not UTF-8 or not JSON, names a key twice, or is not a `kind`.
    """
    try:
        value = json.loads(_read_text(path), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else str(error).lower()
        raise CorpusError(f"{path} is not JSON ({reason}): get it again.") from error
    if not isinstance(value, kind):
        raise CorpusError(f"{path} holds no {'object' if kind is dict else 'list'} of JSON: get it again.")
    return value


def value_of(item: Any, key: str, where: str) -> str:
    """The text under a key of a JSON object.

    Raises:
        CorpusError: there is no object, key or text.
    """
    if not isinstance(item, dict) or key not in item:
        raise CorpusError(f"{where} has no '{key}'.")
    return text_of(item[key], f"{where}: the {key}")


def text_of(value: Any, what: str) -> str:
    """The value, which must be a text.

    Raises:
        CorpusError: it is none.
    """
    if not isinstance(value, str):
        raise CorpusError(f"{what} is no text but {json.dumps(value)[:60]}.")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CorpusError(f"Cannot read {path}: {(error.strerror or str(error)).lower()}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"Cannot read {path}: it is not UTF-8 text: save it as UTF-8.") from error


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in value if keys.count(key) > 1)
        raise CorpusError(f"{path} names {twice[:100]!r} twice: which of the two is meant is unknown.")
    return value

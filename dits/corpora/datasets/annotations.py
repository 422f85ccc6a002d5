"""Reading and validation of annotation files. They are untrusted, and ids become file names.

Known oddities of official files (empty captions, videos without captions, an id in two splits) are left out and give a
notice. Errors that make a file unusable (not UTF-8, malformed JSON, a missing column, a caption that is not text, an id
that is not a file name) raise.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dits.common.errors import CorpusError
from dits.common.files import reason_of
from dits.corpora.corpus import SPLITS, read_rows

Captions = dict[str, list[str]]
"""Captions by video id, both in the order of the file."""

_MAX_NAME_LENGTH = 255  # bytes, the limit of most file systems
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class MissingAnnotationsError(CorpusError):
    """An annotation file is missing. The message names the file and the folder."""


@dataclass(frozen=True)
class Entry:
    """A video in the annotations of a benchmark.

    Attributes:
        captions: at least one.
        names: file names to look for, best first, each with or without an extension; "/" separates folders.
        id, split, group, start, end: as in `dits.corpora.corpus.Clip`.
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
    """The videos of a benchmark.

    Attributes:
        entries: the videos, by split, in the order of the files.
        notices: sentences about known properties of the files.
        left_out: sentences about unusable content of the files.
        uncaptioned: by split, the ids of listed videos that are left out because they have no caption.
    """

    entries: tuple[Entry, ...]
    notices: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    uncaptioned: Mapping[str, Sequence[str]] = field(default_factory=dict)


def build_annotations(
    splits: Mapping[str, Mapping[str, Sequence[str]]],
    notices: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> Annotations:
    """Build entries from captions by split and id; the file name of a video is its id.

    Empty captions and videos without captions are left out. A video in two splits stays in the later one of train,
    validation and test, so that no evaluated video is used for training.

    Raises:
        CorpusError: an id is not a plain file name.
    """
    entries: dict[str, Entry] = {}
    empty = 0
    uncaptioned: dict[str, list[str]] = {}
    in_two_splits: list[str] = []
    for split in SPLITS:
        for video, sentences in splits.get(split, {}).items():
            check_name(video, f"The {split} annotations")
            captions = tuple(caption for caption in map(clean, sentences) if caption)
            empty += len(sentences) - len(captions)
            if entries.pop(video, None):
                in_two_splits.append(video)
            if not captions:
                uncaptioned.setdefault(split, []).append(video)
                continue
            entries[video] = Entry(video, split, captions, (video,), video)
    counts: dict[str, int | Sequence[str]] = {
        "empty captions": empty,
        "videos without a caption": [video for videos in uncaptioned.values() for video in videos],
        "videos in two splits, from the earlier one of train, validation and test": in_two_splits,
    }
    sentences = (*left_out, *left_out_notices(counts))
    return Annotations(tuple(entries.values()), tuple(notices), sentences, uncaptioned)


def left_out_notices(counts: Mapping[str, int | Sequence[str]]) -> list[str]:
    """A sentence for each non-empty entry of `counts` (description: number, or ids), with the first id if there are."""
    return [
        f"Left out: {description} ({count if isinstance(count, int) else f'{len(count)}, the first is {count[0]}'})."
        for description, count in counts.items()
        if count
    ]


def hold_out(ids: Iterable[str], max_count: int) -> set[str]:
    """Choose a validation split for a benchmark without one: `max_count` ids, at most a tenth of them, at least 1.

    Chooses the ids with the smallest SHA-256, so the choice is independent of a seed and of the order.
    """
    ordered = sorted(set(ids), key=lambda video: hashlib.sha256(video.encode("utf-8", "replace")).digest())
    return set(ordered[: min(max_count, max(1, len(ordered) // 10))]) if len(ordered) > 1 else set()


def split_validation(train: Captions, max_count: int) -> dict[str, Captions]:
    """Split training videos into "train" and "validation" by `hold_out`."""
    held_out = hold_out(train, max_count)
    return {
        "train": {video: captions for video, captions in train.items() if video not in held_out},
        "validation": {video: captions for video, captions in train.items() if video in held_out},
    }


def clean(caption: str) -> str:
    """The caption on one line: white space and control characters become single spaces, lone surrogates "?"."""
    return " ".join(_CONTROL.sub(" ", caption).encode("utf-8", "replace").decode().split())


def check_name(name: str, where: str) -> None:
    """Reject names that could lead out of the video folder, or that no file can have.

    Raises:
        CorpusError: the name contains a folder or unprintable characters, or is too long.
    """
    plain = name.strip() == name and name not in ("", ".", "..") and not set(name) & {"/", "\\"}
    if not plain or not name.isprintable() or len(name.encode("utf-8", "replace")) > _MAX_NAME_LENGTH:
        raise CorpusError(f"{where}: the name {name[:100]!r} is not a plain file name without folders.")


# --- Files ---


@dataclass(frozen=True)
class AnnotationFolders:
    """The folders that may contain annotation files, in search order."""

    folders: tuple[Path, ...]

    def has(self, *names: str) -> bool:
        """Whether a file with one of the names exists."""
        return any((folder / name).is_file() for folder in self.folders for name in names)

    def find(self, *names: str) -> Path:
        """The first file with one of the names, which are alternative spellings.

        Raises:
            MissingAnnotationsError: no such file exists.
        """
        for folder in self.folders:
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        raise MissingAnnotationsError(f"There is no {names[0]} in {self.folders[0]}.")


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Like `read_rows`, but only values of the first column must not be empty.

    Raises:
        InputError: see `read_rows`.
        CorpusError: the file has no rows.
    """
    rows = read_rows(path, columns, may_be_empty=columns[1:])
    if not rows:
        raise CorpusError(f"{path} has no rows: get it again.")
    return rows


def read_captions(path: Path, id_column: str, caption_column: str) -> Captions:
    """The captions of a CSV file, by the id in another column.

    Raises:
        InputError, CorpusError: see `read_table`.
    """
    captions: Captions = {}
    for row in read_table(path, (id_column, caption_column)):
        captions.setdefault(row[id_column].strip(), []).append(row[caption_column] or "")
    return captions


def captions_by_id(items: Iterable[Any], id_key: str, caption_key: str, where: str) -> Captions:
    """The captions in JSON objects, by the id under another key. Messages name an object by `where` and its number.

    Raises:
        CorpusError: see `text_field`.
    """
    captions: Captions = {}
    for number, item in enumerate(items, start=1):
        location = f"{where} {number}"
        captions.setdefault(text_field(item, id_key, location), []).append(text_field(item, caption_key, location))
    return captions


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        CorpusError: the file cannot be read, or is not UTF-8.
    """
    # splitlines() would also split at other characters, which sentences may contain.
    return [line.rstrip("\r") for line in _read_text(path).split("\n") if line.strip()]


def read_json(path: Path, kind: type) -> Any:
    """The value of a JSON file of the type `kind`.

    Raises:
        CorpusError: the file cannot be read, is not UTF-8 or not JSON, repeats a key, or is not a `kind`.
    """
    try:
        value = json.loads(_read_text(path), object_pairs_hook=lambda pairs: _unique_keys(pairs, path))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).lower()
        raise CorpusError(f"{path} is not JSON ({reason}): get it again.") from error
    if not isinstance(value, kind):
        raise CorpusError(f"{path} holds no JSON {'object' if kind is dict else 'list'}: get it again.")
    return value


def text_field(item: Any, key: str, where: str) -> str:
    """The text under a key of a JSON object.

    Raises:
        CorpusError: the item is not an object, the key is missing, or the value is not text.
    """
    if not isinstance(item, dict) or key not in item:
        raise CorpusError(f"{where} has no '{key}'.")
    return require_text(item[key], f"{where}: the {key}")


def require_text(value: Any, name: str) -> str:
    """Check that the value is text, and return it.

    Raises:
        CorpusError: it is not text.
    """
    if not isinstance(value, str):
        raise CorpusError(f"{name} is not text but {json.dumps(value)[:60]}.")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CorpusError(f"Cannot read {path}: {reason_of(error)}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"Cannot read {path}: it is not UTF-8 text: save it as UTF-8.") from error


def _unique_keys(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in value if keys.count(key) > 1)
        raise CorpusError(f"{path} names {repeated[:100]!r} twice: remove one of the two.")
    return value

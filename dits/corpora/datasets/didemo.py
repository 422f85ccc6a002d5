"""DiDeMo as paragraphs: all descriptions of a video, joined with a space in the file's order, are its one caption.

Annotators saw the first 30 seconds of a video, so a clip is its seconds 0 to 31, as in CLIP4Clip and T-MASS. Groups
test on 979 to 1,036 videos, and their results do not compare unless they say so.
"""

import re
from dataclasses import replace
from pathlib import Path

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    Captions,
    annotations_of,
    left_out_of,
    read_json,
    read_lines,
    read_table,
    value_of,
)

START, END = 0.0, 31.0  # seconds

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_didemo(folders: AnnotationFolders) -> Annotations:
    """Reads the official JSON files where they are, else the joined CSV files.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    as_csv = folders.has("didemo_test_label.csv") and not folders.has("test_data.json")
    return (read_didemo_csv if as_csv else read_didemo_json)(folders)


def read_didemo_json(folders: AnnotationFolders) -> Annotations:
    """Reads train_data.json, val_data.json and test_data.json.

    Where train_list.txt, val_list.txt or test_list.txt is there too, only the videos that it lists are used.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    splits, notices = {}, []
    for split, short in _SPLITS.items():
        paragraphs = _joined(folders.find(f"{short}_data.json"))
        if folders.has(f"{short}_list.txt"):
            listed = {line.strip() for line in read_lines(folders.find(f"{short}_list.txt"))}
            unlisted = len(paragraphs) - len(paragraphs.keys() & listed)
            paragraphs = {
                video: paragraphs.get(video, []) for video in [*paragraphs, *sorted(listed)] if video in listed
            }
            if unlisted:
                notices.append(
                    f"Not used: videos of {short}_data.json that {short}_list.txt does not name, {unlisted}."
                )
        splits[split] = paragraphs
    return _with_files(annotations_of(splits, notices), {})


def read_didemo_csv(folders: AnnotationFolders) -> Annotations:
    """Reads didemo_train_label.csv, didemo_val_label.csv and didemo_test_label.csv, with paragraphs joined already.

    Their columns `starts` and `ends` are printed tensors, such as "tensor([[31]])".

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    splits: dict[str, Captions] = {}
    segments: dict[str, tuple[float, float]] = {}
    failed: list[str] = []
    for split, short in _SPLITS.items():
        path = folders.find(f"didemo_{short}_label.csv")
        splits[split] = {}
        columns = ("video_path", "starts", "ends", "text", "success")
        for number, row in enumerate(read_table(path, columns), start=2):
            video = re.split(r"[/\\]", row["video_path"].strip())[-1]
            if (row["success"] or "").strip().lower() == "false":
                failed.append(video)
                continue
            where = f"{path}, row {number}"
            segments[video] = printed_number(row["starts"], where), printed_number(row["ends"], where)
            if not 0 <= segments[video][0] < segments[video][1]:
                raise CorpusError(f"{where}: the clip ends before it starts.")
            splits[split].setdefault(video, []).append(row["text"] or "")
    return _with_files(annotations_of(splits, left_out=left_out_of({"videos marked as failed": failed})), segments)


def printed_number(text: str | None, where: str) -> float:
    """The number in a printed tensor.

    >>> printed_number("tensor([[31]])", "row 2")
    31.0

    Raises:
        CorpusError: it holds none, or several.
    """
    numbers = _NUMBER.findall(text or "")
    if len(numbers) != 1:
        raise CorpusError(f"{where}: {(text or '')[:60]!r} is no number of seconds.")
    return float(numbers[0])


def _joined(path: Path) -> Captions:
    """The paragraph of every video, in a list of one."""
    descriptions: Captions = {}
    for number, item in enumerate(read_json(path, list), start=1):
        where = f"{path}, item {number}"
        descriptions.setdefault(value_of(item, "video", where), []).append(value_of(item, "description", where))
    return {video: [" ".join(parts)] for video, parts in descriptions.items()}


def _with_files(annotations: Annotations, segments: dict[str, tuple[float, float]]) -> Annotations:
    """Names keep the extension that the video came with; a file of another one, made from it, will do."""
    entries = []
    for entry in annotations.entries:
        start, end = segments.get(entry.id, (START, END))
        entries.append(replace(entry, names=(entry.id, entry.id.rpartition(".")[0] or entry.id), start=start, end=end))
    return replace(annotations, entries=tuple(entries))

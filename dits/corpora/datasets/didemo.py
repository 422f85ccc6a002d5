"""DiDeMo as paragraphs: the only caption of a video joins all its descriptions, with spaces, in the order of the file.

Annotators saw the first 30 seconds of a video, so a clip is its seconds 0 to 31, as in CLIP4Clip and T-MASS.
Publications test on 979 to 1,036 videos; results on different numbers are not comparable.
"""

import re
from dataclasses import replace

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import (
    AnnotationFolders,
    Annotations,
    Captions,
    build_annotations,
    captions_by_id,
    left_out_notices,
    read_json,
    read_lines,
    read_table,
)

START, END = 0.0, 31.0  # seconds

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_didemo(folders: AnnotationFolders) -> Annotations:
    """Read the official JSON files if they exist, else the joined CSV files.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    as_csv = folders.has("didemo_test_label.csv") and not folders.has("test_data.json")
    return (read_didemo_csv if as_csv else read_didemo_json)(folders)


def read_didemo_json(folders: AnnotationFolders) -> Annotations:
    """Read train_data.json, val_data.json and test_data.json.

    If train_list.txt, val_list.txt or test_list.txt exists, only the videos in it are used.

    Raises:
        CorpusError: a file is missing or cannot be used.
    """
    splits, notices = {}, []
    for split, short in _SPLITS.items():
        path = folders.find(f"{short}_data.json")
        descriptions = captions_by_id(read_json(path, list), "video", "description", f"{path}, item")
        paragraphs = {video: [" ".join(parts)] for video, parts in descriptions.items()}
        if folders.has(f"{short}_list.txt"):
            listed = {line.strip() for line in read_lines(folders.find(f"{short}_list.txt"))}
            unlisted = len(paragraphs) - len(paragraphs.keys() & listed)
            paragraphs = {
                video: paragraphs.get(video, []) for video in [*paragraphs, *sorted(listed)] if video in listed
            }
            if unlisted:
                notices.append(f"Not used: {unlisted} videos of {short}_data.json that are not in {short}_list.txt.")
        splits[split] = paragraphs
    return _with_files(build_annotations(splits, notices), {})


def read_didemo_csv(folders: AnnotationFolders) -> Annotations:
    """Read didemo_train_label.csv, didemo_val_label.csv and didemo_test_label.csv, whose paragraphs are joined already.

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
    left_out = left_out_notices({"videos marked as failed": failed})
    return _with_files(build_annotations(splits, left_out=left_out), segments)


def printed_number(text: str | None, where: str) -> float:
    """The number in a printed tensor.

    >>> printed_number("tensor([[31]])", "row 2")
    31.0

    Raises:
        CorpusError: the text contains no number, or several.
    """
    numbers = _NUMBER.findall(text or "")
    if len(numbers) != 1:
        raise CorpusError(f"{where}: {(text or '')[:60]!r} is not a number of seconds.")
    return float(numbers[0])


def _with_files(annotations: Annotations, segments: dict[str, tuple[float, float]]) -> Annotations:
    """Add file names and segments. An id has the original extension; converted files with another one are accepted."""
    entries = []
    for entry in annotations.entries:
        start, end = segments.get(entry.id, (START, END))
        entries.append(replace(entry, names=(entry.id, entry.id.rpartition(".")[0] or entry.id), start=start, end=end))
    return replace(annotations, entries=tuple(entries))

"""What is there of a dataset and what is not, as a value, a table and a list of problems."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dits.common.files import write_csv
from dits.corpora.corpus import SPLITS
from dits.corpora.datasets.loading import LoadedDataset, repeated_captions


@dataclass(frozen=True)
class SplitReport:
    """A split in numbers.

    Attributes:
        videos: that the annotations list.
        usual: how many the benchmark has, where that is known.
        missing: of these, those whose file is not there.
        undecodable: of these, those whose file does not decode; None where this was not tried.
        captions: of the listed videos.
        fewest, most: captions of one video.
        repeated: captions that repeat an earlier one of the split.
    """

    videos: int
    usual: int | None
    missing: int
    undecodable: int | None
    captions: int
    fewest: int
    most: int
    repeated: int


@dataclass(frozen=True)
class DataReport:
    """A dataset in numbers, and everything that is wrong with it.

    Attributes:
        title: the dataset's name in prose.
        root: the folder of its videos.
        splits: by name; only those that the annotations list videos of.
        missing: by split, the ids of videos that are not there.
        undecodable: why, by the id of a video; None where this was not tried.
        unused: how many videos in the folder the annotations do not name.
        notices: as of `dits.corpora.datasets.loading.LoadedDataset`.
    """

    title: str
    root: str
    splits: Mapping[str, SplitReport]
    missing: Mapping[str, tuple[str, ...]]
    undecodable: Mapping[str, str] | None
    unused: int
    notices: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether no video is missing, and all decode as far as they were tried."""
        return not any(self.missing.values()) and not self.undecodable

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"complete": self.complete, **asdict(self)}


def report_on(
    loaded: LoadedDataset, root: Path, usual: Mapping[str, int], undecodable: Mapping[str, str] | None = None
) -> DataReport:
    """Sums a dataset up.

    Args:
        usual: how many videos a split of it has, as far as that is known.
        undecodable: why clips do not decode, by their ids, where that was tried.
    """
    splits = {}
    for split in SPLITS:
        entries = [entry for entry in loaded.annotations.entries if entry.split == split]
        if not entries:
            continue
        counts = [len(entry.captions) for entry in entries]
        repeated, captions = repeated_captions(entries, split)
        bad = None if undecodable is None else sum(entry.id in undecodable for entry in entries)
        splits[split] = SplitReport(
            videos=len(entries),
            usual=usual.get(split),
            missing=len(loaded.missing[split]),
            undecodable=bad,
            captions=captions,
            fewest=min(counts),
            most=max(counts),
            repeated=repeated,
        )
    missing = {split: ids for split, ids in loaded.missing.items() if ids}
    return DataReport(loaded.title, str(root), splits, missing, undecodable, len(loaded.unused), loaded.notices)


def report_table(report: DataReport) -> str:
    """The report as lines to read."""
    lines = [
        f"{report.title}, in {report.root}",
        "",
        "| split | usual | listed | found | missing | undecodable | captions | per video | repeated |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, split in report.splits.items():
        tried = "not tried" if split.undecodable is None else split.undecodable
        each = split.fewest if split.fewest == split.most else f"{split.fewest} to {split.most}"
        found = split.videos - split.missing
        usual = "" if split.usual is None else split.usual
        cells = (name, usual, split.videos, found, split.missing, tried, split.captions, each, split.repeated)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", *report.notices]
    if report.unused:
        lines.append(f"Videos in the folder that are not used: {report.unused}.")
    lines += [f"{video}: {reason}" for video, reason in (report.undecodable or {}).items()]
    if report.undecodable:
        lines.append("Replace what does not decode, or take it away: a missing video is skipped, and told.")
    lines.append("Complete." if report.complete else "Not complete.")
    return "\n".join(lines)


def write_problems(report: DataReport, path: Path) -> int:
    """Writes a CSV file with the columns split, video, problem and reason; returns how many problems there are.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = [(split, video, "missing", "") for split, ids in report.missing.items() for video in ids]
    rows += [("", video, "undecodable", reason) for video, reason in (report.undecodable or {}).items()]
    write_csv(path, ("split", "video", "problem", "reason"), rows)
    return len(rows)

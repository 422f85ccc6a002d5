"""Reports on the completeness of a dataset, as an object, a table and a list of problems."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dits.common.files import write_csv
from dits.corpora.corpus import SPLITS
from dits.corpora.datasets.loading import LoadedDataset, repeated_captions


@dataclass(frozen=True)
class SplitReport:
    """The numbers of a split.

    Attributes:
        videos: videos in the annotations.
        usual: videos in the complete benchmark, if known.
        missing: listed videos without a file.
        undecodable: listed videos whose file cannot be decoded; None if this was not checked.
        captions: captions of the listed videos.
        fewest, most: the minimum and maximum number of captions per video.
        repeated: captions that repeat an earlier caption of the split.
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
    """The numbers and all problems of a dataset.

    Attributes:
        title: the displayed name of the dataset.
        root: the folder of its videos.
        splits: the splits with videos, by name.
        missing: the ids of missing videos, by split.
        undecodable: the reasons why videos cannot be decoded, by id; None if this was not checked.
        unused: the number of videos in the folder that are not in the annotations.
        notices: see `dits.corpora.datasets.loading.LoadedDataset`.
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
        """Whether no video is missing and no checked video is undecodable."""
        return not any(self.missing.values()) and not self.undecodable

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"complete": self.complete, **asdict(self)}


def report_on(
    loaded: LoadedDataset, root: Path, usual: Mapping[str, int], undecodable: Mapping[str, str] | None = None
) -> DataReport:
    """Build the report of a dataset.

    Args:
        usual: the number of videos per split of the complete benchmark, as far as it is known.
        undecodable: the reasons why clips cannot be decoded, by id; None if this was not checked.
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
    """The report as text, with a Markdown table."""
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
        lines.append("Replace undecodable videos, or remove them: missing videos are skipped, with a notice.")
    lines.append("Complete." if report.complete else "Not complete.")
    return "\n".join(lines)


def write_problems(report: DataReport, path: Path) -> int:
    """Write a CSV file with the columns split, video, problem and reason; return the number of problems.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = [(split, video, "missing", "") for split, ids in report.missing.items() for video in ids]
    rows += [("", video, "undecodable", reason) for video, reason in (report.undecodable or {}).items()]
    write_csv(path, ("split", "video", "problem", "reason"), rows)
    return len(rows)

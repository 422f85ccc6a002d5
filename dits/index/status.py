"""The status of an index."""

import os
from dataclasses import dataclass
from typing import Any

from dits.index.schema import DUPLICATE, FAILED, MISSING
from dits.index.store import VideoIndex
from dits.video.probe import name_of

_MAX_LISTED = 20


@dataclass(frozen=True)
class IndexStatus:
    """The contents of an index.

    Attributes:
        location: its folder or URL.
        encoder: id of the encoder.
        videos, segments: numbers of searchable videos and segments.
        failed: path and reason of each file that could not be read.
        duplicates: path and reason of each copy of another file.
        missing: paths of missing files; their embeddings are kept in case the files return.
        recall: recall@10 of candidates from the vector index against the exact ranking, by method, if measured.
    """

    location: str
    encoder: str
    videos: int
    segments: int
    failed: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    recall: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The status as values for JSON."""
        values = {
            "index": self.location,
            "encoder": self.encoder,
            "videos": self.videos,
            "segments": self.segments,
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "duplicates": [{"path": path, "reason": reason} for path, reason in self.duplicates],
            "missing": list(self.missing),
        }
        return values if self.recall is None else values | {"recall": self.recall}

    def as_text(self) -> str:
        """The status as text for a terminal."""
        lines = [
            f"{self.location}, embedded by {self.encoder}",
            f"{self.videos} videos in {self.segments} segments; {len(self.failed)} failed, {len(self.duplicates)} "
            f"copies of others, {len(self.missing)} missing",
        ]
        sections = (("failed", self.failed), ("copies", self.duplicates), ("missing", [(p, "") for p in self.missing]))
        for title, rows in sections:
            if rows:
                entries = (f"  {name_of(path)}{': ' * bool(reason)}{reason}" for path, reason in rows[:_MAX_LISTED])
                lines += [f"{title}:", *entries]
                lines += [f"  and {len(rows) - _MAX_LISTED} more: --json lists all"] * (len(rows) > _MAX_LISTED)
        if self.recall is not None:
            lines += [f"recall@10 of candidates, {name}: {value:.3f}" for name, value in self.recall.items()]
        return "\n".join(lines)


def status_of(index: VideoIndex, recall: dict[str, float] | None = None) -> IndexStatus:
    """The status of an index.

    Args:
        recall: of candidates, if measured (see `dits.search.recall.candidate_recall`).

    Raises:
        IndexStoreError: the index cannot be read.
    """
    counts, files = index.counts(), index.files().values()
    reasons = {
        status: tuple(sorted((os.fsdecode(f.path), f.reason) for f in files if f.status == status))
        for status in (FAILED, DUPLICATE, MISSING)
    }
    return IndexStatus(
        location=index.location,
        encoder=index.encoder,
        videos=counts["videos"],
        segments=counts["segments"],
        failed=reasons[FAILED],
        duplicates=reasons[DUPLICATE],
        missing=tuple(path for path, _ in reasons[MISSING]),
        recall=recall,
    )

"""What an index holds."""

import os
from dataclasses import dataclass
from typing import Any

from dits.index.schema import DUPLICATE, FAILED, MISSING
from dits.index.store import VideoIndex
from dits.video.probe import name_of

_SHOWN = 20


@dataclass(frozen=True)
class IndexStatus:
    """What an index holds.

    Attributes:
        location: its folder or URL.
        encoder: id of the encoder.
        videos, segments: that can be searched.
        failed: paths of files that could not be read, as the system has them, with the reasons.
        duplicates: paths of copies, with what they are copies of.
        missing: paths of files that are gone; their embeddings are kept, in case they come back.
        recall: recall@10 of candidates from the vector index against the exact ranking, by method; None where it was
            not asked for.
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
        """The status as JSON values."""
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
        """The status for people."""
        lines = [
            f"{self.location}, embedded by {self.encoder}",
            f"{self.videos} videos in {self.segments} segments; {len(self.failed)} failed, {len(self.duplicates)} "
            f"copies of others, {len(self.missing)} gone",
        ]
        for title, rows in (
            ("failed", self.failed),
            ("copies", self.duplicates),
            ("gone", [(p, "") for p in self.missing]),
        ):
            if rows:
                lines += [
                    f"{title}:",
                    *(f"  {name_of(path)}{': ' * bool(reason)}{reason}" for path, reason in rows[:_SHOWN]),
                ]
                lines += [f"  and {len(rows) - _SHOWN} more: --json lists all"] * (len(rows) > _SHOWN)
        if self.recall is not None:
            lines += [f"recall@10 of candidates, {name}: {value:.3f}" for name, value in self.recall.items()]
        return "\n".join(lines)


def status_of(index: VideoIndex, recall: dict[str, float] | None = None) -> IndexStatus:
    """What an index holds.

    Args:
        recall: of candidates, where it was measured (`dits.search.recall.candidate_recall`).

    Raises:
        IndexStoreError: it cannot be read.
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

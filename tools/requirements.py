"""Reads requirement files: the ranges of requirements.txt, and its lock with a release and hashes of each package."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS, LOCK = ROOT / "requirements.txt", ROOT / "requirements.lock"


@dataclass(frozen=True)
class Locked:
    """A release that the lock names.

    Attributes:
        marker: where it is installed; everywhere by default.
        hashes: of its files, as ALGORITHM:DIGEST.
        via: what requires it: other packages, and requirement files after "-r".
    """

    name: NormalizedName
    version: Version
    marker: Marker | None
    hashes: tuple[str, ...]
    via: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether it is installed under this interpreter, on this machine."""
        return self.marker is None or self.marker.evaluate()


def read_requirements(path: Path = REQUIREMENTS) -> list[Requirement]:
    """The requirements that a file names, in its order, without those of files that it names in turn."""
    lines = (line.partition(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def read_lock(path: Path = LOCK) -> list[Locked]:
    """The releases of a lock file, in its order."""
    return list(_locked(path.read_text(encoding="utf-8")))


def _locked(text: str) -> Iterator[Locked]:
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line[:1].isalnum()]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        requirement = Requirement(lines[start].rstrip("\\ "))
        [pin] = requirement.specifier
        rest = "\n".join(lines[start + 1 : end])
        yield Locked(
            name=canonicalize_name(requirement.name),
            version=Version(pin.version),
            marker=requirement.marker,
            hashes=tuple(re.findall(r"--hash=(\S+)", rest)),
            via=tuple(re.findall(r"^    #(?: via|  ) (.+)$", rest, flags=re.MULTILINE)),
        )

"""Reads requirement files: requirements.txt with version ranges, and its lock with a release and hashes per package."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS, LOCK = ROOT / "requirements.txt", ROOT / "requirements.lock"


@dataclass(frozen=True)
class LockedPackage:
    """A package in the lock.

    Attributes:
        marker: the environments in which it is installed; None means all.
        hashes: of its files, as ALGORITHM:DIGEST.
        via: the packages, and requirement files after "-r", that require it.
    """

    name: NormalizedName
    version: Version
    marker: Marker | None
    hashes: tuple[str, ...]
    via: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether the lock installs it for this interpreter on this machine."""
        return self.marker is None or self.marker.evaluate()


def read_requirements(path: Path = REQUIREMENTS) -> list[Requirement]:
    """The requirements in a file, in its order, without those of included files."""
    lines = (line.partition(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def read_lock(path: Path = LOCK) -> list[LockedPackage]:
    """The packages in a lock file, in its order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line[:1].isalnum()]
    return [_locked_package(lines[start:end]) for start, end in pairwise([*starts, len(lines)])]


def _locked_package(lines: Sequence[str]) -> LockedPackage:
    requirement = Requirement(lines[0].rstrip("\\ "))
    [pin] = requirement.specifier
    rest = "\n".join(lines[1:])
    return LockedPackage(
        name=canonicalize_name(requirement.name),
        version=Version(pin.version),
        marker=requirement.marker,
        hashes=tuple(re.findall(r"--hash=(\S+)", rest)),
        via=tuple(re.findall(r"^    #(?: via|  ) (.+)$", rest, flags=re.MULTILINE)),
    )

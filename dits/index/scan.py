"""Which files are videos: folders are walked, whatever they hold."""

import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dits.common.errors import InputError
from dits.video.probe import name_of

SUFFIXES = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".vob", ".webm", ".wmv", ".y4m",
])  # fmt: skip
"""What the names of videos end in (not .ts, which is TypeScript more often). A file that is named itself need not."""


@dataclass(frozen=True)
class FoundFile:
    """A file that may be a video: its path, its size in bytes, and its time of modification in nanoseconds."""

    path: bytes
    size: int
    mtime: int


@dataclass
class Scan:
    """What a walk found.

    Attributes:
        files: by their paths, in order.
        problems: why files and folders could not be looked at, by their paths.
        folders: that were listed.
    """

    files: dict[bytes, FoundFile] = field(default_factory=dict)
    problems: dict[bytes, str] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=set)

    def without(self, paths: Collection[bytes]) -> "Scan":
        """What is neither one of some paths nor below one."""
        return Scan(
            {path: file for path, file in self.files.items() if not below(path, paths)},
            {path: reason for path, reason in self.problems.items() if not below(path, paths)},
            {folder for folder in self.folders if not below(folder, paths)},
        )


def check_paths(paths: Iterable[str | bytes]) -> list[bytes]:
    """The paths, absolute; to be asked before the long work.

    Raises:
        InputError: one does not exist.
    """
    whole = [absolute(path) for path in paths]
    for path in whole:
        if not os.path.lexists(path):
            raise InputError(f"There is no file or folder {name_of(path)}: check the path.")
    return whole


def absolute(path: str | bytes) -> bytes:
    """A path as the index names it; links stay."""
    return os.path.abspath(os.path.expanduser(os.fsencode(path)))


def find_videos(paths: Iterable[str | bytes]) -> Scan:
    """The videos among files and in folders, at any depth.

    Links are followed, but no folder is walked twice, so that loops of links end. Names that begin with a dot are
    passed over. What is named like a video and is no regular file is a problem; it is never opened.

    Raises:
        InputError: a path does not exist.
    """
    scan, seen = Scan(), set[tuple[int, int]]()
    for path in check_paths(paths):
        _look(scan, seen, path, named=True)
    return scan


def shown(path: bytes) -> str:
    """A path as text, as it is but for bytes that are no UTF-8. Messages have `name_of`."""
    return path.decode("utf-8", "replace")


def below(path: bytes, folders: Iterable[bytes]) -> bool:
    """Whether a path is one of some paths, or lies below one."""
    return any(path == folder or path.startswith(folder.rstrip(b"/") + b"/") for folder in folders)


def _look(scan: Scan, seen: set[tuple[int, int]], path: bytes, named: bool) -> None:
    is_video = named or os.path.splitext(path)[1].decode("ascii", "replace").lower() in SUFFIXES
    try:
        found = os.stat(path)
    except OSError as error:  # a link to nowhere, a loop of links, or a folder that may not be entered
        if is_video:
            scan.problems[path] = f"It cannot be looked at: {(error.strerror or str(error)).lower()}."
        return
    if stat.S_ISDIR(found.st_mode):
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            _walk(scan, seen, path)
    elif is_video and stat.S_ISREG(found.st_mode):
        scan.files[path] = FoundFile(path, found.st_size, found.st_mtime_ns)
    elif is_video:
        scan.problems[path] = "It is not a regular file; copy the video into one."


def _walk(scan: Scan, seen: set[tuple[int, int]], folder: bytes) -> None:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        scan.problems[folder] = f"The folder cannot be listed: {(error.strerror or str(error)).lower()}."
        return
    scan.folders.add(folder)
    for name in names:
        if not name.startswith(b"."):
            _look(scan, seen, os.path.join(folder, name), named=False)

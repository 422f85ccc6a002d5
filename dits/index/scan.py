"""The search for video files in folders, which may hold anything."""

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
"""Suffixes of video files in folders (.ts is more often TypeScript). A file that is given by its path may have any."""


@dataclass(frozen=True)
class FoundFile:
    """A file that may be a video: its path, size in bytes, and modification time in nanoseconds."""

    path: bytes
    size: int
    mtime: int


@dataclass
class Scan:
    """The result of a walk.

    Attributes:
        files: the files found, by path, in order.
        problems: why a file or folder could not be read, by path.
        folders: the folders that were listed.
    """

    files: dict[bytes, FoundFile] = field(default_factory=dict)
    problems: dict[bytes, str] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=set)

    def without(self, paths: Collection[bytes]) -> "Scan":
        """The scan without some paths and everything below them."""
        return Scan(
            {path: file for path, file in self.files.items() if not below(path, paths)},
            {path: reason for path, reason in self.problems.items() if not below(path, paths)},
            {folder for folder in self.folders if not below(folder, paths)},
        )


def check_paths(paths: Iterable[str | bytes]) -> list[bytes]:
    """Makes paths absolute, and checks that they exist.

    Raises:
        InputError: a path does not exist.
    """
    full_paths = [absolute(path) for path in paths]
    for path in full_paths:
        if not os.path.lexists(path):
            raise InputError(f"There is no file or folder {name_of(path)}: check the path.")
    return full_paths


def absolute(path: str | bytes) -> bytes:
    """A path as the index stores it: absolute, with links not resolved."""
    return os.path.abspath(os.path.expanduser(os.fsencode(path)))


def find_videos(paths: Iterable[str | bytes]) -> Scan:
    """Finds videos among files and in folders, at any depth.

    Links are followed, but no folder is walked twice, so a loop of links ends. Names that begin with a dot are skipped.
    Something that is named like a video but is not a regular file is a problem; it is never opened.

    Raises:
        InputError: a path does not exist.
    """
    scan, seen = Scan(), set[tuple[int, int]]()
    for path in check_paths(paths):
        _visit(scan, seen, path, explicit=True)
    return scan


def path_text(path: bytes) -> str:
    """A path as text; bytes that are not UTF-8 are replaced. Error messages use `name_of` instead."""
    return path.decode("utf-8", "replace")


def below(path: bytes, folders: Iterable[bytes]) -> bool:
    """Whether a path is one of some folders, or lies below one."""
    return any(path == folder or path.startswith(folder.rstrip(b"/") + b"/") for folder in folders)


def _visit(scan: Scan, seen: set[tuple[int, int]], path: bytes, explicit: bool) -> None:
    is_video = explicit or os.path.splitext(path)[1].decode("ascii", "replace").lower() in SUFFIXES
    try:
        status = os.stat(path)
    except OSError as error:  # a link to nowhere, a loop of links, or a folder that may not be entered
        if is_video:
            scan.problems[path] = f"It cannot be read: {(error.strerror or str(error)).lower()}."
        return
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            _walk(scan, seen, path)
    elif is_video and stat.S_ISREG(status.st_mode):
        scan.files[path] = FoundFile(path, status.st_size, status.st_mtime_ns)
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
            _visit(scan, seen, os.path.join(folder, name), explicit=False)

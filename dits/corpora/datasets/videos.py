"""Finds the videos of a benchmark. Names are compared with listed files, so no name leads out of the folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from dits.common.errors import CorpusError
from dits.common.files import reason_of

EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov")
"""Extensions to try if a name has none, in this order."""

_OTHER_EXTENSIONS = (".m4v", ".mpg", ".mpeg", ".3gp", ".wmv", ".mts", ".flv")


class VideoFolders:
    """The folders that may contain videos. Each folder is listed once, at the first search in it."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._listings: dict[Path, dict[str, str]] = {}
        self._found: set[Path] = set()

    def find(self, names: Iterable[str]) -> Path | None:
        """The first file with one of the names, with or without one of EXTENSIONS; "/" in a name separates folders.

        Raises:
            CorpusError: a folder cannot be listed.
        """
        for name in names:
            *parts, last = name.split("/")
            if any(part in ("", ".", "..") or "\\" in part for part in parts):
                continue
            for folder in (base.joinpath(*parts) for base in self._folders):
                listing = self._listing(folder)
                for candidate in (last, *(last + extension for extension in EXTENSIONS)):
                    if candidate in listing:
                        path = folder / listing[candidate]
                        self._found.add(path)
                        return path
        return None

    def unused(self) -> list[Path]:
        """The videos in the listed folders that `find` has not returned."""
        extensions = (*EXTENSIONS, *_OTHER_EXTENSIONS)
        return sorted(
            folder / file
            for folder, listing in self._listings.items()
            for file in set(listing.values())
            if file.lower().endswith(extensions) and folder / file not in self._found
        )

    def _listing(self, folder: Path) -> dict[str, str]:
        """The files of a folder by name, also with the extension in lower case; empty if it is missing."""
        if folder not in self._listings:
            files: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    files = sorted(entry.name for entry in entries if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise CorpusError(f"Cannot list {folder}: {reason_of(error)}.") from error
            lowered = {name[: -len(s)] + s.lower(): name for name in files if (s := os.path.splitext(name)[1])}
            self._listings[folder] = lowered | {name: name for name in files}
        return self._listings[folder]

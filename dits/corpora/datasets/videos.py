"""Finding a benchmark's videos: names are compared with the files that are there, so none leads out of the folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from dits.common.errors import CorpusError

EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov")
"""Extensions that are tried on a name that has none, in this order."""

_OTHERS = (".m4v", ".mpg", ".mpeg", ".3gp", ".wmv", ".mts", ".flv")


class VideoFolders:
    """The folders that videos may lie in. Each is listed once, when something in it is first asked for."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._listings: dict[Path, dict[str, str]] = {}
        self._found: set[Path] = set()

    def find(self, names: Iterable[str]) -> Path | None:
        """The file that one of the names means, as it is or with one of EXTENSIONS; "/" in a name parts folders.

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
        """The videos in the folders listed so far that nothing asked for."""
        videos = (*EXTENSIONS, *_OTHERS)
        return sorted(
            folder / file
            for folder, listing in self._listings.items()
            for file in set(listing.values())
            if file.lower().endswith(videos) and folder / file not in self._found
        )

    def _listing(self, folder: Path) -> dict[str, str]:
        """The files of a folder, if there is one, by their names, with lower-case extensions too."""
        if folder not in self._listings:
            files: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    files = sorted(entry.name for entry in entries if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise CorpusError(f"Cannot list {folder}: {(error.strerror or str(error)).lower()}.") from error
            lowered = {name[: -len(s)] + s.lower(): name for name in files if (s := os.path.splitext(name)[1])}
            self._listings[folder] = lowered | {name: name for name in files}
        return self._listings[folder]

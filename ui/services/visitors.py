"""Whose videos are whose: one library on a run of one's own, one for every visitor where the app is hosted."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from filecmp import cmp
from pathlib import Path
from typing import Protocol

from dits.common.errors import InputError, StorageError, require
from dits.common.files import make_folder, storage_errors
from dits.corpora.index_location import default_location
from dits.index.adding.config import AddConfig
from dits.index.scan import below
from dits.search.engine import SearchEngine
from ui.runtime.process_folder import ProcessFolder
from ui.services.library import Library

GONE = "Your videos are not here any more: they are deleted after a while without use. Add them again."

_ADDED_WITHIN = 600.0  # seconds, or what was uploaded is deleted


@dataclass(frozen=True)
class Limits:
    """What a visitor may upload where the app is hosted.

    Attributes:
        files: at a time and in all.
        megabytes: of a file.
        seconds: that a video may last.
        visitors: with videos at the same time.
        idle: seconds without use, after which a visitor's videos are deleted.
        waiting: megabytes that all visitors together may upload before they add them.
    """

    files: int = 20
    megabytes: int = 100
    seconds: int = 300
    visitors: int = 10
    idle: int = 1800
    waiting: int = 4000

    def __post_init__(self) -> None:
        for field in fields(self):
            require(getattr(self, field.name) > 0, f"The limit of {field.name} must be above 0.")


class Libraries(Protocol):
    """Libraries by the sessions that they belong to."""

    @property
    def limits(self) -> Limits | None:
        """What may be uploaded; None on a run of one's own, where folders can be named too."""

    def of(self, session: str | None) -> Library:
        """A session's library, made where it has none; raises DitsError where there can be no more."""

    def find(self, session: str | None) -> Library | None:
        """A session's library, if it has one."""

    def by_token(self, token: str) -> Library | None: ...

    def leave(self, session: str | None) -> None:
        """Deletes what a session has added, where it is only there for the visit."""

    def kept(self, library: Library, uploads: Sequence[str]) -> list[str]:
        """Uploaded files, which the page holds for a while only, moved to where they stay; raises DitsError."""

    def discard(self, path: bytes) -> None:
        """Deletes an upload that was kept, or all below a folder; nothing else."""

    @property
    def running(self) -> bool:
        """Whether videos are being added for anybody."""

    def stop(self) -> None:
        """Ends that, within a second or so; what is stored stays."""


class OwnLibrary:
    """The one library of a run of one's own."""

    limits = None

    def __init__(self, library: Library) -> None:
        self.library = library

    def of(self, session: str | None) -> Library:
        return self.library

    def find(self, session: str | None) -> Library:
        return self.library

    def by_token(self, token: str) -> Library | None:
        return self.library if token == self.library.token else None

    def leave(self, session: str | None) -> None:
        pass

    def kept(self, library: Library, uploads: Sequence[str]) -> list[str]:
        return [str(_moved(Path(upload), make_folder(self._dropped))) for upload in uploads]

    def discard(self, path: bytes) -> None:
        for kept in self._dropped.glob("*"):
            if below(os.fsencode(kept), [path]):
                kept.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        return self.library.runs.running

    def stop(self) -> None:
        self.library.runs.stop()

    @property
    def _dropped(self) -> Path:
        return Path(default_location()).parent / "dropped"


class VisitorLibraries:
    """A library for every session, in a folder of its own, that goes when the visitor does.

    Everything lies below one folder of this process; what processes that are gone have left is removed.
    """

    def __init__(self, base: Callable[[], SearchEngine], limits: Limits, root: Path | None = None) -> None:
        """`root`: see `ProcessFolder`."""
        self.limits = limits
        self.scratch = ProcessFolder(root)
        self.folder = self.scratch.path
        self._base, self._turn = base, threading.Lock()
        self._lock = threading.Lock()
        self._libraries: dict[str, Library] = {}
        self._used: dict[str, float] = {}
        threading.Thread(target=self._watch, name="visitors", daemon=True).start()

    def of(self, session: str | None) -> Library:
        if not session:
            raise InputError("Open the page in a browser to add videos of your own.")
        with self._lock:
            if session not in self._libraries:
                require(
                    len(self._libraries) < self.limits.visitors,
                    "Too many visitors have videos here now: try again in a few minutes, or run the app yourself.",
                )
                self._libraries[session] = self._made()
            self._used[session] = time.monotonic()
            return self._libraries[session]

    def find(self, session: str | None) -> Library | None:
        with self._lock:
            if session in self._libraries:
                self._used[session] = time.monotonic()
                return self._libraries[session]
        return None

    def by_token(self, token: str) -> Library | None:
        with self._lock:
            for name, library in self._libraries.items():
                if library.token == token:
                    self._used[name] = time.monotonic()
                    return library
        return None

    def kept(self, library: Library, uploads: Sequence[str]) -> list[str]:
        limits, folder = self.limits, make_folder(Path(library.location).parent / "videos")
        there = len(os.listdir(folder))
        require(
            there + len(uploads) <= limits.files,
            f"You can add {limits.files} videos here, and these would be {there + len(uploads)}: choose fewer, or run "
            "the app yourself.",
        )
        for upload in uploads:
            require(
                os.path.getsize(upload) <= limits.megabytes * 1_000_000,
                f"{Path(upload).name} is larger than {limits.megabytes} MB: choose a smaller one, or run the app "
                "yourself.",
            )
        return [str(_moved(Path(upload), folder)) for upload in uploads]

    def discard(self, path: bytes) -> None:
        """Nothing: a visitor deletes all at once."""

    def leave(self, session: str | None) -> None:
        """Deletes a session's videos, and everything made of them, in the background."""
        with self._lock:
            library = self._libraries.pop(str(session), None)
            self._used.pop(str(session), None)
        if library:
            threading.Thread(target=_delete, args=(library,), name="leaving", daemon=True).start()

    @property
    def running(self) -> bool:
        return any(library.runs.running for library in self._all())

    def stop(self) -> None:
        for library in self._all():
            library.runs.stop()

    def close(self) -> None:
        """Deletes all videos, at the end of the process."""
        for session in list(self._libraries):
            self._libraries.pop(session).close()
        self.scratch.close()

    def _all(self) -> list[Library]:
        with self._lock:
            return list(self._libraries.values())

    def _made(self) -> Library:
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="visitor-"))
        config = AddConfig(longest=float(self.limits.seconds))
        return Library(str(folder / "index"), self._base, self._turn, config, folder)

    def _watch(self) -> None:
        """Deletes what has not been used for a while, and what was uploaded and not added."""
        while True:
            time.sleep(min(60.0, self.limits.idle / 4))
            with suppress(StorageError):  # a disk is full for a time, and this thread is there for good
                self.scratch.forget_uploads(min(_ADDED_WITHIN, self.limits.idle))
            with self._lock:
                now = time.monotonic()
                self._used |= {name: now for name, library in self._libraries.items() if library.runs.running}
                idle = [name for name, used in self._used.items() if now - used > self.limits.idle]
            for session in idle:
                self.leave(session)


def _moved(file: Path, folder: Path) -> Path:
    """A file, moved to its name in a folder; numbered where another file has that name.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
        InputError: the file is gone.
    """
    if not file.is_file():
        raise InputError(f"{file.name} is not here any more: drop it again.")
    with storage_errors(folder):
        for number in range(1, 10_000):
            target = folder / (file.name if number == 1 else f"{file.stem} ({number}){file.suffix}")
            if not os.path.lexists(target):
                partly = folder / f".{target.name[:200]}.partly"
                shutil.move(file, partly)
                partly.rename(target)
                return target
            if target.is_file() and cmp(file, target, shallow=False):
                file.unlink()
                return target
    raise InputError(f"There are too many files called {file.name}: rename it.")


def _delete(library: Library) -> None:
    folder = Path(library.location).parent
    library.close()
    shutil.rmtree(folder, ignore_errors=True)

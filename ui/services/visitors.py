"""Libraries of sessions: a single one on a local run, and one for each visitor of a hosted app."""

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

DELETED = "Your videos are no longer available: they are deleted after some time without use. Add them again."

_UPLOAD_LIFETIME = 600.0  # seconds after which uploads are deleted unless they are added


@dataclass(frozen=True)
class Limits:
    """Maximum uploads of a hosted app.

    Attributes:
        files: number per upload and per visitor.
        megabytes: size of a file.
        seconds: duration of a video.
        visitors: number of visitors with videos at the same time.
        idle: seconds without use, after which a visitor's videos are deleted.
        waiting: megabytes of all visitors' uploads that are not added yet.
    """

    files: int = 20
    megabytes: int = 100
    seconds: int = 300
    visitors: int = 10
    idle: int = 1800
    waiting: int = 4000

    def __post_init__(self) -> None:
        for field in fields(self):
            require(getattr(self, field.name) > 0, f"The limit '{field.name}' must be above 0.")


class Libraries(Protocol):
    """Libraries by session."""

    @property
    def limits(self) -> Limits | None:
        """Limits of uploads; None on a local run, where users can also name folders."""

    def of(self, session: str | None) -> Library:
        """Return a session's library, created if missing; raises DitsError if there are too many."""

    def find(self, session: str | None) -> Library | None:
        """Return a session's library, or None."""

    def by_token(self, token: str) -> Library | None: ...

    def leave(self, session: str | None) -> None:
        """Delete a session's videos in a hosted app; do nothing on a local run."""

    def keep_uploads(self, library: Library, uploads: Sequence[str]) -> list[str]:
        """Move uploads from the temporary folder to a permanent one; return the new paths. Raises DitsError."""

    def discard(self, path: bytes) -> None:
        """Delete a file of `keep_uploads`, or all such files below a folder; no other files."""

    @property
    def running(self) -> bool:
        """Whether a run is in progress in any library."""

    def stop(self) -> None:
        """Stop all runs within about a second; the indexes keep what is already stored."""


class OwnLibrary:
    """The single library of a local run."""

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

    def keep_uploads(self, library: Library, uploads: Sequence[str]) -> list[str]:
        return [str(_move(Path(upload), make_folder(self._dropped))) for upload in uploads]

    def discard(self, path: bytes) -> None:
        for file in self._dropped.glob("*"):
            if below(os.fsencode(file), [path]):
                file.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        return self.library.runs.running

    def stop(self) -> None:
        self.library.runs.stop()

    @property
    def _dropped(self) -> Path:
        return Path(default_location()).parent / "dropped"


class VisitorLibraries:
    """One library for each session, in a separate folder that is deleted when the visitor leaves.

    All folders are below the temporary folder of this process, see `ProcessFolder`.
    """

    def __init__(self, base: Callable[[], SearchEngine], limits: Limits, root: Path | None = None) -> None:
        """`root`: see `ProcessFolder`."""
        self.limits = limits
        self.process_folder = ProcessFolder(root)
        self.folder = self.process_folder.path
        self._base, self._app_lock = base, threading.Lock()
        self._lock = threading.Lock()
        self._libraries: dict[str, Library] = {}
        self._last_use: dict[str, float] = {}
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
                self._libraries[session] = self._new_library()
            return self._use(session)

    def find(self, session: str | None) -> Library | None:
        with self._lock:
            return self._use(session) if session in self._libraries else None

    def by_token(self, token: str) -> Library | None:
        with self._lock:
            sessions = [session for session, library in self._libraries.items() if library.token == token]
            return self._use(sessions[0]) if sessions else None

    def keep_uploads(self, library: Library, uploads: Sequence[str]) -> list[str]:
        limits, folder = self.limits, make_folder(Path(library.location).parent / "videos")
        total = len(os.listdir(folder)) + len(uploads)
        require(
            total <= limits.files,
            f"You can add {limits.files} videos here, and these would be {total}: choose fewer, or run the app "
            "yourself.",
        )
        for upload in uploads:
            require(
                os.path.getsize(upload) <= limits.megabytes * 1_000_000,
                f"{Path(upload).name} is larger than {limits.megabytes} MB: choose a smaller one, or run the app "
                "yourself.",
            )
        return [str(_move(Path(upload), folder)) for upload in uploads]

    def discard(self, path: bytes) -> None:
        """Do nothing: a visitor can only delete all videos together."""

    def leave(self, session: str | None) -> None:
        """Delete a session's videos, and all files derived from them, in the background."""
        with self._lock:
            library = self._libraries.pop(str(session), None)
            self._last_use.pop(str(session), None)
        if library:
            threading.Thread(target=_delete, args=(library,), name="leaving", daemon=True).start()

    @property
    def running(self) -> bool:
        return any(library.runs.running for library in self._all())

    def stop(self) -> None:
        for library in self._all():
            library.runs.stop()

    def close(self) -> None:
        """Delete all videos, at the end of the process."""
        for session in list(self._libraries):
            self._libraries.pop(session).close()
        self.process_folder.close()

    def _all(self) -> list[Library]:
        with self._lock:
            return list(self._libraries.values())

    def _use(self, session: str) -> Library:
        """Return a session's library and record its use; the caller holds the lock."""
        self._last_use[session] = time.monotonic()
        return self._libraries[session]

    def _new_library(self) -> Library:
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="visitor-"))
        config = AddConfig(longest=float(self.limits.seconds))
        return Library(str(folder / "index"), self._base, self._app_lock, config, folder)

    def _watch(self) -> None:
        """Delete unused libraries and old uploads in an endless loop."""
        while True:
            time.sleep(min(60.0, self.limits.idle / 4))
            with suppress(StorageError):  # such as a full disk; this thread must go on
                self.process_folder.forget_uploads(min(_UPLOAD_LIFETIME, self.limits.idle))
            with self._lock:
                now = time.monotonic()
                self._last_use |= {name: now for name, library in self._libraries.items() if library.runs.running}
                idle = [name for name, used in self._last_use.items() if now - used > self.limits.idle]
            for session in idle:
                self.leave(session)


def _move(file: Path, folder: Path) -> Path:
    """Move a file to a folder; add a number to its name if a different file has that name. Return the new path.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
        InputError: the file is missing, or too many files have its name.
    """
    if not file.is_file():
        raise InputError(f"The upload {file.name} is missing: drop it again.")
    with storage_errors(folder):
        for number in range(1, 10_000):
            target = folder / (file.name if number == 1 else f"{file.stem} ({number}){file.suffix}")
            if not os.path.lexists(target):
                partial = folder / f".{target.name[:200]}.partly"
                shutil.move(file, partial)
                partial.rename(target)
                return target
            if target.is_file() and cmp(file, target, shallow=False):
                file.unlink()
                return target
    raise InputError(f"There are too many files called {file.name}: rename it.")


def _delete(library: Library) -> None:
    folder = Path(library.location).parent
    library.close()
    shutil.rmtree(folder, ignore_errors=True)

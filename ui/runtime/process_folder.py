"""A folder of this process alone, among the system's temporary files, that goes when the process does."""

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from dits.common.errors import StorageError
from dits.common.files import make_folder, storage_errors


class ProcessFolder:
    """The folder; what processes that are gone have left beside it is removed.

    Attributes:
        path: of the folder, which nobody else on the machine can look into.
    """

    def __init__(self, root: Path | None = None) -> None:
        """`root` is a folder for the processes' folders, by default one of this user's temporary files.

        Raises:
            StorageError: it cannot be written, or is somebody else's.
        """
        root = _private(root or Path(tempfile.gettempdir()) / f"dits-{_user()}")
        _remove_leftovers(root)
        self.path = Path(tempfile.mkdtemp(dir=root))
        self._held = FileLock(root / f"{self.path.name}.lock")
        self._held.acquire()
        self._found: dict[tuple[Path, int, int, int], float] = {}  # uploads, and since when they have been here

    @property
    def uploads(self) -> Path:
        """For what is uploaded and not added yet."""
        return make_folder(self.path / "uploads")

    def forget_uploads(self, seconds: float) -> None:
        """Removes what was uploaded so long ago: what has been found here, unchanged, for so long.

        What a file says of its age is of a clock that may be set while the app runs.
        """
        before, self._found, now = self._found, {}, time.monotonic()
        for at, _, names in os.walk(self.uploads):
            for name in names:
                path = Path(at, name)
                try:
                    status = path.lstat()
                    file = (path, status.st_ino, status.st_size, status.st_mtime_ns)
                    self._found[file] = before.get(file, now)
                    if now - self._found[file] > seconds:
                        path.unlink()
                except OSError:  # it was added meanwhile
                    continue

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._held.release()
        Path(self._held.lock_file).unlink(missing_ok=True)


def _private(root: Path) -> Path:
    """A folder that is this user's alone, made if it is missing."""
    with storage_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user():
        raise StorageError(f"{root} is not a folder of yours: remove it, or set TMPDIR to another folder.")
    with storage_errors(root):
        root.chmod(0o700)
    return root


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # Windows gives every user temporary files of their own


def _remove_leftovers(root: Path) -> None:
    """Removes the folders of processes that are gone: nobody holds their locks."""
    for lock in root.glob("*.lock"):
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        except (Timeout, OSError):
            continue

"""A private temporary folder of this process, removed when the process ends."""

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
    """A temporary folder. Creating one also removes the folders left by processes that have ended.

    Attributes:
        path: the folder; other users of the machine cannot read it.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Create the folder below `root`, by default a folder of this user in the system's temporary folder.

        Raises:
            StorageError: `root` is not writable, or belongs to another user.
        """
        root = _private_folder(root or Path(tempfile.gettempdir()) / f"dits-{_user()}")
        _remove_leftovers(root)
        self.path = Path(tempfile.mkdtemp(dir=root))
        self._lock = FileLock(root / f"{self.path.name}.lock")
        self._lock.acquire()
        self._first_seen: dict[tuple[Path, int, int, int], float] = {}  # time by path, inode, size and mtime

    @property
    def uploads(self) -> Path:
        """Folder of uploads that are not added to an index yet."""
        return make_folder(self.path / "uploads")

    def forget_uploads(self, seconds: float) -> None:
        """Delete uploads that have been here unchanged for more than `seconds`.

        Modification times are not used as ages, because the system clock may be changed while the app runs.
        """
        before, self._first_seen, now = self._first_seen, {}, time.monotonic()
        for folder, _, names in os.walk(self.uploads):
            for name in names:
                path = Path(folder, name)
                try:
                    status = path.lstat()
                    key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
                    self._first_seen[key] = before.get(key, now)
                    if now - self._first_seen[key] > seconds:
                        path.unlink()
                except OSError:  # added to an index in the meantime
                    continue

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def _private_folder(root: Path) -> Path:
    """Create a folder that only this user can access, if it is missing."""
    with storage_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != _user():
        raise StorageError(f"{root} is not a folder that belongs to you: remove it, or set TMPDIR to another folder.")
    with storage_errors(root):
        root.chmod(0o700)
    return root


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # on Windows each user has a separate temporary folder


def _remove_leftovers(root: Path) -> None:
    """Remove the folders of processes that have ended: nobody holds their locks."""
    for lock in root.glob("*.lock"):
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        except (Timeout, OSError):
            continue

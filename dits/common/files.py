"""File locations, atomic writes, JSON, CSV and checksums."""

import csv
import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from safetensors import SafetensorError

from dits.common.errors import DitsError, StorageError

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "assets"

ASSETS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "assets"
"""What is shipped: inside the package where a wheel was installed, beside it in the repository."""


def cache_root() -> Path:
    """The folder for everything that can be rebuilt: $DITS_CACHE, or the user's cache folder."""
    override = os.environ.get("DITS_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("dits"))


def make_folder(path: Path) -> Path:
    """Create the folder if it is missing, and return it.

    Raises:
        StorageError: the folder cannot be created or is not writable.
    """
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(_no_permission(path))
    return path


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`: renamed to `target` when the block succeeds, deleted when it raises.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    make_folder(target.parent)
    with storage_errors(target.parent):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Convert write errors of the operating system to StorageError.

    Raises:
        StorageError: no permission, a read-only file system, a full disk, a file in place of a folder, or other.
    """
    try:
        yield
    except DitsError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(_no_permission(folder)) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"No space left in {folder}: free some, or set DITS_CACHE to a folder on another disk."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise StorageError(f"{folder} is not a folder: remove it, or choose another one.") from error
        raise StorageError(f"Cannot write in {folder}: {reason_of(error)}.") from error
    except SafetensorError as error:  # the message contains the system's reason
        raise StorageError(f"Cannot write in {folder}: {error}. Is the disk full?") from error


@contextmanager
def optional_cache_write() -> Iterator[None]:
    """For writes to the cache inside the block: if a write fails, a warning is logged and no error is raised."""
    try:
        yield
    except StorageError as error:
        logging.getLogger(__name__).warning("The result is not cached: %s", error)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as JSON, atomically.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_csv(target: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a header and rows as CSV in UTF-8, atomically.

    Text with commas, quotes or line breaks is quoted. A lone surrogate, which UTF-8 cannot encode, is escaped.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    with (
        atomic_path(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def reason_of(error: Exception) -> str:
    """The reason of the operating system for an error, in lower case, or else the error's message."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _no_permission(folder: Path) -> str:
    return f"No permission to write in {folder}: change its owner, or set DITS_CACHE to a folder you can write."

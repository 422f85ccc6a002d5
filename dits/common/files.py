"""Files: where things live, and writing them whole or not at all."""

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

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def cache_root() -> Path:
    """The folder that everything rebuildable goes to: $DITS_CACHE, or the user's cache folder."""
    override = os.environ.get("DITS_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("dits"))


def make_folder(path: Path) -> Path:
    """The folder, made if it is missing.

    Raises:
        StorageError: it cannot be made or written to.
    """
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(_no_permission(path))
    return path


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its name when the block ends well, and vanishes when it does not.

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
    """Turns the operating system's refusals to write into one sentence.

    Raises:
        StorageError: no permission, a read-only file system, no space, a file where a folder should be, or any other.
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
        raise StorageError(f"Cannot write in {folder}: {(error.strerror or str(error)).lower()}.") from error
    except SafetensorError as error:  # the system's reason is in its message
        raise StorageError(f"Cannot write in {folder}: {error}. Is the disk full?") from error


@contextmanager
def optional_cache_write() -> Iterator[None]:
    """What is written inside is only kept to be found again: where it cannot be, the log says so, and work goes on."""
    try:
        yield
    except StorageError as error:
        logging.getLogger(__name__).warning("What was computed is not kept: %s", error)


def write_json(target: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """A JSON value that anybody may have written.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_csv(target: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows under their column names as CSV in UTF-8, whole or not at all.

    Text with commas, quotes or line breaks is quoted. Half a surrogate pair, which UTF-8 has no bytes for, is written
    as its escape.

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


def _no_permission(folder: Path) -> str:
    return f"No permission to write in {folder}: change its owner, or set DITS_CACHE to a folder you can write."

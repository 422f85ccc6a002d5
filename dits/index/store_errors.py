"""Errors of LanceDB as one-sentence messages."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from dits.common.errors import DitsError, IndexStoreError

_LANCE_ERRORS = (RuntimeError, ValueError, OSError, KeyError, pa.ArrowException)
_DAMAGED = re.compile(
    "sufficient data|fill whole buffer|corrupt|file size is too small|Invalid range|decode Protobuf|Invalid input, |"
    "invalid magic|was not found|panicked",
    re.IGNORECASE,
)  # Lance's errors for truncated, overwritten or missing files


@contextmanager
def store_errors(location: str) -> Iterator[None]:
    """Replaces errors of LanceDB.

    Raises:
        IndexStoreError: LanceDB raised an error; the message is one sentence.
    """
    try:
        yield
    except DitsError:
        raise
    except Exception as error:
        if isinstance(error, _LANCE_ERRORS) or type(error).__name__ == "RustPanic":  # a class that cannot be imported
            raise IndexStoreError(_message(location, str(error))) from error
        raise


def _message(location: str, text: str) -> str:
    if "No space left" in text or "os error 28" in text:
        return f"No space left for the index {location}: free some and run the command again; it continues from there."
    if "Permission denied" in text or "Read-only file system" in text:
        return f"No permission to write the index {location}: change its owner, or name another with --index DIR."
    missing = re.search(r"[Nn]ot found: (\S+\.lance)\b", text)
    if missing or _DAMAGED.search(text):
        where = f": {os.path.basename(missing[1])} is missing" if missing else ""
        return (
            f"The index {location} is damaged{where}. Restore it from a copy, or remove it and add the videos again; "
            "the videos themselves are untouched."
        )
    if "File exists" in text or "Not a directory" in text:
        return f"{location} is not a folder: name another with --index DIR."
    reason = re.sub(r",? /\S+\.rs:\d+:\d+", "", " ".join(text.split()))[:300].rstrip(".")
    return f"The index {location} cannot be used: {reason}."

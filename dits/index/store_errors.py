"""What LanceDB refuses, in one sentence."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from dits.common.errors import DitsError, IndexStoreError

_RAISED = (RuntimeError, ValueError, OSError, KeyError, pa.ArrowException)
_DAMAGED = re.compile(
    "sufficient data|fill whole buffer|corrupt|file size is too small|Invalid range|decode Protobuf|Invalid input, |"
    "invalid magic|was not found|panicked",
    re.IGNORECASE,
)  # what Lance says of files that are cut off, overwritten, or gone


@contextmanager
def store_errors(location: str) -> Iterator[None]:
    """Turns what LanceDB raises into one sentence.

    Raises:
        IndexStoreError: always in the place of an error of LanceDB.
    """
    try:
        yield
    except DitsError:
        raise
    except Exception as error:
        if isinstance(error, _RAISED) or type(error).__name__ == "RustPanic":  # a class that cannot be imported
            raise IndexStoreError(_why(location, str(error))) from error
        raise


def _why(location: str, text: str) -> str:
    if "No space left" in text or "os error 28" in text:
        return f"No space left for the index {location}: free some and run the command again; it goes on from there."
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
        return f"{location} is no folder: name another with --index DIR."
    told = re.sub(r",? /\S+\.rs:\d+:\d+", "", " ".join(text.split()))[:300].rstrip(".")
    return f"The index {location} cannot be used: {told}."

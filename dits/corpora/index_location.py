"""The location of an index."""

import os
from contextlib import suppress
from pathlib import Path

import platformdirs

DEFAULT = "index"
"""The name of the index in the user's data folder."""


def default_location() -> str:
    """The path of the index in the user's data folder."""
    return str(Path(platformdirs.user_data_dir("dits")) / "index")


def is_index(name: str) -> bool:
    """Whether a name denotes an index: "index", a URL, or a folder with LanceDB tables."""
    if name == DEFAULT or "://" in name:
        return True
    with suppress(OSError, ValueError):
        return any(entry.endswith(".lance") for entry in os.listdir(os.path.expanduser(name)))
    return False


def location_of(name: str) -> str:
    """The absolute folder or the URL of an index."""
    if name == DEFAULT:
        return default_location()
    return name if "://" in name else os.path.abspath(os.path.expanduser(name))

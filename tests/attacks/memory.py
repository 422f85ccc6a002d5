"""How much memory something takes at most, whatever this process took before."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOST = 300 * 2**20
"""Bytes that a refusal may take, with what it imports for the first time."""

_PROCESS = Path("/proc/self")


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails where the process takes `MOST` bytes more than now, even for a moment; skips where no system counts it."""
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the most is counted from now on
    except OSError:
        pytest.skip("the most memory that a process takes is counted on Linux alone")
    before = _most()
    yield
    assert _most() - before < MOST


def _most() -> int:
    status = (_PROCESS / "status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

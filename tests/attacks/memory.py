"""Peak memory of a block of code, independent of the earlier peak of the process."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MAX_BYTES = 300 * 2**20
"""Maximum memory of a rejected attack, first imports included."""

_PROCESS = Path("/proc/self")


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails if the process takes `MAX_BYTES` more than now, even for a moment; skips if the system cannot tell."""
    try:
        (_PROCESS / "clear_refs").write_text("5")  # resets the peak
    except OSError:
        pytest.skip("peak memory is measured only on Linux")
    before = _peak()
    yield
    assert _peak() - before < MAX_BYTES


def _peak() -> int:
    status = (_PROCESS / "status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

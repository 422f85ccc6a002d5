"""Worker processes that items crash or hang: the results, and no processes left over."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import ModuleType

import pytest

from dits.common.errors import DitsError
from dits.video.workers import MAX_BYTES, WorkerFailure, map_in_workers, run_in_workers
from tests.fixtures.hostile_items import grow, obey


def test_every_item_has_its_result():
    results = dict(map_in_workers(obey, range(1, 31), 3, 60))
    assert {number: result[1] for number, result in results.items()} == {n: n**2 for n in range(1, 31)}
    assert 1 <= len({result[0] for result in results.values()}) <= 3  # the processes are reused
    assert not multiprocessing.active_children()


def test_a_process_that_dies_or_hangs_is_replaced_and_only_its_item_fails():
    items = [2, "die", 3, "hang", "die", 4, "hang", 5]
    began = time.monotonic()
    results = list(map_in_workers(obey, items, 2, 2))
    assert time.monotonic() - began < 60  # what hangs would sleep for an hour
    assert [result for item, result in results if item == "die"] == [WorkerFailure(timed_out=False)] * 2
    assert [result for item, result in results if item == "hang"] == [WorkerFailure(timed_out=True)] * 2
    assert {item: result[1] for item, result in results if isinstance(item, int)} == {2: 4, 3: 9, 4: 16, 5: 25}
    assert not multiprocessing.active_children()


def test_an_item_whose_process_died_is_tried_once_more_after_the_others(tmp_path):
    once = ("once", tmp_path / "died")
    results = list(map_in_workers(obey, [once, 1, 2], 1, 60))
    assert [(item, result[1]) for item, result in results] == [(1, 1), (2, 4), (once, "twice")]


def test_results_may_add_items():
    """The caller may add items after a result; the run ends when no item is left or in progress."""
    left = deque([2, 3])
    results = {}
    for item, (_, square) in run_in_workers(obey, lambda: left.popleft() if left else None, 2, lambda item: 60):
        results[item] = square
        if square < 50:
            left.append(square)
    assert results == {2: 4, 3: 9, 4: 16, 9: 81, 16: 256}
    assert not multiprocessing.active_children()


def test_every_item_has_its_own_time_limit():
    began = time.monotonic()
    items = iter(["hang", 3])
    limit = {"hang": 1, 3: 3600}
    results = dict(run_in_workers(obey, lambda: next(items, None), 2, limit.__getitem__))
    assert results["hang"] == WorkerFailure(timed_out=True)
    assert results[3][1] == 9
    assert time.monotonic() - began < 60


def test_closing_the_generator_leaves_no_process():
    results = map_in_workers(obey, [1, "hang", "hang"], 3, 3600)
    assert next(results)[0] == 1
    results.close()
    assert not multiprocessing.active_children()


def test_processes_that_cannot_start_are_an_error(monkeypatch):
    """The function's module exists only in this process."""
    module = ModuleType("nowhere_else")
    exec("def function(item): return item", module.__dict__)
    monkeypatch.setitem(sys.modules, "nowhere_else", module)
    with pytest.raises(DitsError, match="does not start"):
        list(map_in_workers(module.function, [1, 2], 2, 60))
    assert not multiprocessing.active_children()


def test_nothing_to_do_starts_nothing():
    assert list(map_in_workers(obey, [], 4, 60)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_the_memory_of_a_process_is_limited():
    results = list(map_in_workers(grow, [2 * MAX_BYTES, 2 * MAX_BYTES], 1, 60))
    assert len({got for _, got in results}) == 1  # what failed leaves the process as it was
    assert 2**30 <= results[0][1] < MAX_BYTES


def test_a_cancelled_run_ends_immediately():
    began = time.monotonic()
    items = iter(["hang", "hang"])
    ended = iter([False] * 3)
    results = run_in_workers(obey, lambda: next(items, None), 2, lambda item: 3600, lambda: next(ended, True))
    assert list(results) == []
    assert time.monotonic() - began < 60
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed differently there")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "from dits.video.workers import map_in_workers\nfrom tests.fixtures.hostile_items import endure\n"
        f"if __name__ == '__main__':\n    list(map_in_workers(endure, [{str(tmp_path / 'pid')!r}], 1, 3600))\n"
    )
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.Popen([sys.executable, script], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    pid = int(_eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    _eventually(lambda: not _runs(pid))


def _runs(pid):
    """Whether a process exists and is not a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _eventually(found, seconds=120):
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result

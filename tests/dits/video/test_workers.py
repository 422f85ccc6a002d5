"""Processes that items crash and hang: what comes back, and what is left running."""

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
from dits.video.workers import MAX_BYTES, Lost, map_in_workers, run_in_worker
from tests.fixtures.hostile_items import grow, obey


def test_every_item_has_its_result():
    results = dict(map_in_workers(obey, range(1, 31), 3, 60))
    assert {number: result[1] for number, result in results.items()} == {n: n**2 for n in range(1, 31)}
    assert 1 <= len({result[0] for result in results.values()}) <= 3  # the processes are kept
    assert not multiprocessing.active_children()


def test_a_process_that_dies_or_hangs_is_replaced_and_costs_its_item_alone():
    items = [2, "die", 3, "hang", "die", 4, "hang", 5]
    began = time.monotonic()
    results = list(map_in_workers(obey, items, 2, 2))
    assert time.monotonic() - began < 60  # what hangs would sleep for an hour
    assert [result for item, result in results if item == "die"] == [Lost(timed_out=False)] * 2
    assert [result for item, result in results if item == "hang"] == [Lost(timed_out=True)] * 2
    assert {item: result[1] for item, result in results if isinstance(item, int)} == {2: 4, 3: 9, 4: 16, 5: 25}
    assert not multiprocessing.active_children()


def test_an_item_whose_process_died_is_tried_once_more_after_the_others(tmp_path):
    once = ("once", tmp_path / "died")
    results = list(map_in_workers(obey, [once, 1, 2], 1, 60))
    assert [(item, result[1]) for item, result in results] == [(1, 1), (2, 4), (once, "twice")]


def test_results_may_add_items():
    """Whoever asks may learn from a result what else is to be done; the run ends when nothing is left or awaited."""
    left = deque([2, 3])
    results = {}
    for item, (_, square) in run_in_worker(obey, lambda: left.popleft() if left else None, 2, lambda item: 60):
        results[item] = square
        if square < 50:
            left.append(square)
    assert results == {2: 4, 3: 9, 4: 16, 9: 81, 16: 256}
    assert not multiprocessing.active_children()


def test_an_item_has_the_time_that_is_said_of_it():
    began = time.monotonic()
    items = iter(["hang", 3])
    limit = {"hang": 1, 3: 3600}
    results = dict(run_in_worker(obey, lambda: next(items, None), 2, limit.__getitem__))
    assert results["hang"] == Lost(timed_out=True)
    assert results[3][1] == 9
    assert time.monotonic() - began < 60


def test_who_stops_asking_leaves_no_process():
    results = map_in_workers(obey, [1, "hang", "hang"], 3, 3600)
    assert next(results)[0] == 1
    results.close()
    assert not multiprocessing.active_children()


def test_processes_that_cannot_start_are_an_error(monkeypatch):
    """The function's module is there in this process alone."""
    module = ModuleType("nowhere_else")
    exec("def function(item): return item", module.__dict__)
    monkeypatch.setitem(sys.modules, "nowhere_else", module)
    with pytest.raises(DitsError, match="does not start"):
        list(map_in_workers(module.function, [1, 2], 2, 60))
    assert not multiprocessing.active_children()


def test_nothing_to_do_starts_nothing():
    assert list(map_in_workers(obey, [], 4, 60)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process asks for")
def test_a_process_gets_so_much_memory_and_no_more():
    results = list(map_in_workers(grow, [2 * MAX_BYTES, 2 * MAX_BYTES], 1, 60))
    assert len({got for _, got in results}) == 1  # what failed leaves the process as it was
    assert 2**30 <= results[0][1] < MAX_BYTES


def test_who_says_that_the_run_has_ended_is_heard_at_once():
    began = time.monotonic()
    items = iter(["hang", "hang"])
    ended = iter([False] * 3)
    results = run_in_worker(obey, lambda: next(items, None), 2, lambda item: 3600, lambda: next(ended, True))
    assert list(results) == []
    assert time.monotonic() - began < 60
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed differently there")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "from dits.video.workers import each_expendably\nfrom tests.fixtures.hostile_items import endure\n"
        f"if __name__ == '__main__':\n    list(each_expendably(endure, [{str(tmp_path / 'pid')!r}], 1, 3600))\n"
    )
    root = Path(__file__).resolve().parents[4]
    parent = subprocess.Popen([sys.executable, script], cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    pid = int(_eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    _eventually(lambda: not _runs(pid))


def _runs(pid):
    """Whether a process is there, and not only waits for someone to ask how it ended."""
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

"""Background threads of low priority."""

import contextvars
import json
import os
import subprocess
import sys
import threading

import gradio as gr
import pytest
import torch

from dits.common.errors import InputError
from dits.common.threads import CORES, compute_on
from ui.runtime.background import BackgroundThreads

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")


def priority():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
def test_a_handler_runs_at_a_lower_priority_than_what_waits_for_it():
    """In a process that starts at its parent's niceness and rises to the highest."""
    code = (
        "import os, threading; from ui.runtime.background import BackgroundThreads\n"
        "priority = lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())\n"
        "for more in (0, 4, 8): os.nice(more); print(priority(), BackgroundThreads(1)(priority)())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    pairs = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    assert len({own for own, _ in pairs}) == 3
    assert all(background == min(own + 10, 19) for own, background in pairs)


@linux
def test_threads_of_a_handler_inherit_its_priority():
    found = []

    def start():
        thread = threading.Thread(target=lambda: found.append(priority()))
        thread.start()
        thread.join()

    BackgroundThreads(1)(start)()
    assert found[0] == BackgroundThreads(1)(priority)()


def test_a_handler_uses_half_of_the_cores_regardless_of_other_threads():
    background = BackgroundThreads(1)
    assert background(torch.get_num_threads)() == max(1, CORES // 2)
    compute_on(CORES)
    assert background(torch.get_num_threads)() == max(1, CORES // 2)
    assert torch.get_num_threads() == CORES


def test_numpy_has_no_threads_of_its_own():
    code = "import ui, json, numpy, threadpoolctl; print(json.dumps(threadpoolctl.threadpool_info()))"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    pools = [pool for pool in json.loads(run.stdout) if pool["internal_api"] == "openblas"]
    assert all(pool["num_threads"] == 1 for pool in pools)


def test_a_handler_sees_the_session_that_called_it():
    session = contextvars.ContextVar("session", default=None)
    session.set("mine")
    assert BackgroundThreads(1)(session.get)() == "mine"


def test_no_more_than_allowed_run_at_once():
    running, most, lock = [0], [0], threading.Lock()
    both_running = threading.Barrier(2)

    def count():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both_running.wait(timeout=30)
        with lock:
            running[0] -= 1

    run = BackgroundThreads(2)(count)
    callers = [threading.Thread(target=run) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most[0] == 2


def test_expected_errors_are_messages_on_the_page():
    def refuse():
        raise InputError("There is no clip <b>.")

    with pytest.raises(gr.Error, match="no clip &lt;b&gt;"):
        BackgroundThreads(1)(refuse)()

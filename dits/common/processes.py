"""Worker processes: how they are started, and how many."""

import multiprocessing
import os
from multiprocessing.context import BaseContext

_MAX_WORKERS = 8
_PRELOADED = ["dits.corpora.clip_loader", "dits.video.sampling", "open_clip.transform", "torchvision.transforms", "av"]
"""Modules that every worker needs and that take seconds to import. decord is excluded: PyAV must be loaded first."""


def worker_context() -> BaseContext:
    """A `multiprocessing` context whose workers start in milliseconds, from a process without threads or GPU.

    That process (the fork server) has the slow modules imported. Systems without a fork server use "spawn".
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def cpu_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """The default number of worker processes: one per CPU core, at most 8."""
    return min(_MAX_WORKERS, cpu_cores())

"""How worker processes are started: from one that holds no threads and no GPU, where the system has such a way."""

import multiprocessing
from multiprocessing.context import BaseContext

_PRELOADED = ["dits.corpora.clip_loader", "dits.video.sampling", "open_clip.transform", "torchvision.transforms", "av"]
"""What takes seconds to import and every worker needs. decord is not among them: PyAV must be loaded before it."""


def worker_context() -> BaseContext:
    """A context for `multiprocessing`: workers start in milliseconds, from a process that has PyTorch imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context

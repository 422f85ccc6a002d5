"""What the platform's package `spaces` does where GPUs are lent (ZeroGPU), without a GPU.

A decorated function runs in a process that is forked for it, to which arguments and results are pickled. LENT names a
file that gets a line a call: the process that ran it, and how many seconds were asked for. REFUSED is what the platform
says where it lends none.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

config = SimpleNamespace(Config=SimpleNamespace(zero_gpu=True))

_functions = {}


class _RefusedError(RuntimeError):
    pass


def GPU(duration):  # noqa: N802, as the platform names it
    def decorated(function):
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        key = len(_functions)
        _functions[key] = function

        def lent(*arguments):
            if refusal := os.environ.get("REFUSED"):
                _note("refused", duration)
                raise _RefusedError(refusal)
            return pool.submit(_run, key, duration, arguments).result()

        return lent

    return decorated


def _run(key, duration, arguments):
    _note(os.getpid(), duration)
    return _functions[key](*arguments)


def _note(*said):
    with open(os.environ["LENT"], "a", encoding="utf-8") as file:
        print(*said, file=file)

"""The number of CPU cores that PyTorch uses, per calling thread."""

import torch

CORES = torch.get_num_threads()
"""PyTorch's default: all cores of the machine, or the number in OMP_NUM_THREADS."""


def compute_on(cores: int) -> None:
    """Set the number of cores that PyTorch uses for calls from this thread.

    A new thread inherits the value that any thread set last, so each thread that depends on it calls this function.
    """
    torch.set_num_threads(cores)

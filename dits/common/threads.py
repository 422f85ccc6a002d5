"""On how many cores PyTorch computes, by the thread that calls it."""

import torch

CORES = torch.get_num_threads()
"""What PyTorch begins with: the machine's cores, or as many as OMP_NUM_THREADS allows."""


def compute_on(cores: int) -> None:
    """Where this thread calls PyTorch, that computes on so many cores, whatever other threads say.

    A thread begins with what was said last, anywhere: where it matters, each says so for itself.
    """
    torch.set_num_threads(cores)

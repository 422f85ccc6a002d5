"""Several processes that train one model: the rank of this process, and gathering embeddings with gradients.

Every process embeds its share of a batch, gathers all embeddings, and computes the loss of the whole batch with the
same random draws. DistributedDataParallel then averages the gradients of all W processes. The retrieval model gets the
same gradient in every process, and averaging does not change it. The encoder gets in each process only the gradient
through that process's embeddings. The gradient of the whole batch is the sum of these, W times their average, so
`gather_with_gradients` multiplies by W in the backward pass. The result is the gradients of a single process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dits.common.errors import InputError, require

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The processes of a training, and the rank of this process.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes, on all machines.
        device: the device of this process.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def primary(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's share of `count` items in order; all shares have the same size."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def from_primary(self, value: Value) -> Value:
        """The `value` of the primary process, in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device(self.device))
        return values[0]

    def from_all(self, value: Value) -> list[Value]:
        """The `value` of every process, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined_world(device: str = "auto") -> Iterator[World]:
    """The world of the processes that torchrun started; without torchrun, of this process alone.

    Args:
        device: auto, cpu or cuda; with torchrun on CUDA, every process of a machine uses its own GPU.

    Raises:
        InputError: there is no such device, or a machine has fewer GPUs than processes.
    """
    require(device in ("auto", "cpu", "cuda"), f"There is no device '{device}': choose auto, cpu or cuda.")
    cuda = torch.cuda.is_available()
    require(device != "cuda" or cuda, "There is no CUDA device here: train with --device cpu.")
    use_cuda = cuda and device != "cpu"
    size, rank, local = (int(os.environ.get(name, default)) for name, default in _ENVIRONMENT)
    if size == 1:
        yield World(device="cuda" if use_cuda else "cpu")
        return
    if use_cuda:
        if local >= torch.cuda.device_count():
            raise InputError(
                f"This machine has more processes than its {torch.cuda.device_count()} GPUs: start torchrun with "
                f"--nproc-per-node {torch.cuda.device_count()}, or train with --device cpu."
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if use_cuda else "gloo", rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        yield World(rank, size, f"cuda:{local}" if use_cuda else "cpu")
    finally:
        dist.destroy_process_group()


_TIMEOUT = timedelta(hours=1)  # processes also wait while others decode videos or the primary one evaluates
_ENVIRONMENT = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


def gather(x: Tensor, world: World) -> Tensor:
    """The tensors (n, ...) of all processes, concatenated (W * n, ...), without gradients."""
    if world.size == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world.size)]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_with_gradients(x: Tensor, world: World) -> Tensor:
    """`gather` with gradients: W times those of this process's part (see the module's docstring)."""
    return x if world.size == 1 else _Gather.apply(x, world)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        ctx.world = world
        return gather(x, world)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.world.share(len(gradient))] * ctx.world.size, None

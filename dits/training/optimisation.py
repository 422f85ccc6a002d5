"""Shared by all trainings: the learning rate schedule, and parameter groups with their own learning rates."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """The learning rate factor at a step (from 0): linear warm-up, then half a cosine to zero."""
    warmup_steps = warmup * total
    if step < warmup_steps:
        return (step + 1) / max(1.0, warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1.0, total - warmup_steps)))


def trainable_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that need a gradient, with their names."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def parameter_groups(
    groups: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float, decay_vectors: bool = True
) -> list[dict[str, Any]]:
    """Optimiser groups; `base_lr` keeps a group's learning rate for schedules.

    Args:
        groups: parameters with their learning rate; parameters that need no gradient are left out.
        weight_decay: of AdamW.
        decay_vectors: whether parameters of fewer than two dimensions, such as biases and norms, decay too.
    """
    result = []
    for parameters, rate in groups:
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        matrices = [p for p in trainable if p.ndim > 1 or decay_vectors]
        vectors = [p for p in trainable if p.ndim <= 1 and not decay_vectors]
        for members, decay in ((matrices, weight_decay), (vectors, 0.0)):
            if members:
                result.append({"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return result


def set_learning_rates(groups: list[dict[str, Any]], factor: float) -> None:
    """Sets the learning rate of every group to `factor` times its base rate."""
    for group in groups:
        group["lr"] = group["base_lr"] * factor

"""What every training shares: the schedule of the learning rate, and parameters in groups with rates of their own."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """The factor on the learning rate at a step (from 0): linear warm-up, then half a cosine to zero."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / max(1.0, rising)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, total - rising)))


def parameter_groups(
    groups: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float, decay_vectors: bool = True
) -> list[dict[str, Any]]:
    """Groups for an optimiser from parameters and their learning rates; `base_lr` keeps the rate for schedules.

    Args:
        groups: parameters with their learning rate; what needs no gradient is left out.
        weight_decay: of AdamW.
        decay_vectors: whether biases, norms and other parameters of fewer than two dimensions decay too.
    """
    result = []
    for parameters, rate in groups:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        matrices = [p for p in trained if p.ndim > 1 or decay_vectors]
        vectors = [p for p in trained if p.ndim <= 1 and not decay_vectors]
        for members, decay in ((matrices, weight_decay), (vectors, 0.0)):
            if members:
                result.append({"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return result


def set_learning_rates(groups: list[dict[str, Any]], factor: float) -> None:
    """Gives every group `factor` times its base rate."""
    for group in groups:
        group["lr"] = group["base_lr"] * factor

"""The noise schedule of the sampler: beta, alpha, chi and lambda for the timesteps 1..T'."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dits.common.errors import InputError

MAX_STEPS = 10_000
"""The highest T' that is computed: so that a number in a file of weights cannot fill the memory."""


@dataclass(frozen=True)
class NoiseSchedule:
    """Per-timestep coefficients, each of shape (T',), entry k belonging to timestep i = k + 1.

    Attributes:
        beta: variance of the forward process.
        alpha: 1 - beta.
        alpha_bar: running product of alpha.
        chi: step size of the network's output, Equation 8.
        lam: scale of the injected noise, sqrt(beta); 0 at timestep 1, where no noise is drawn.
    """

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor
    chi: Tensor
    lam: Tensor

    def __len__(self) -> int:
        return len(self.beta)


def linear_schedule(steps: int, beta_start: float = 0.1, beta_end: float = 0.99) -> NoiseSchedule:
    """Linear variance schedule of the paper (section 4.1), spaced anew for every number of steps.

    chi_i = (1 - alpha_i) / sqrt(alpha_i - alpha_i * alpha_bar_i) (section 3.3); lambda_i^2 = beta_i, as in the
    paper's diffusion baseline (section 3.2). The paper does not say whether the schedule is re-spaced when T'
    changes; here beta always runs from `beta_start` to `beta_end`. Computed in float64.

    Raises:
        InputError: `steps` is negative or above MAX_STEPS, or the betas do not satisfy 0 < beta_start <= beta_end < 1.
    """
    if steps < 0:
        raise InputError(f"The number of sampler steps must be 0 or more, not {steps}.")
    if steps > MAX_STEPS:
        raise InputError(f"The number of sampler steps must be {MAX_STEPS:,} or less, not {steps:,}.")
    if not 0 < beta_start <= beta_end < 1:
        raise InputError(f"The noise schedule needs 0 < beta_start <= beta_end < 1, not {beta_start} and {beta_end}.")
    beta = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    alpha = 1 - beta
    alpha_bar = torch.cumprod(alpha, dim=0)
    chi = (1 - alpha) / torch.sqrt(alpha - alpha * alpha_bar)
    lam = torch.sqrt(beta)
    if steps:
        lam[0] = 0.0
    return NoiseSchedule(beta, alpha, alpha_bar, chi, lam)

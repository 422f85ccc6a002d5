"""The noise schedule of the sampler: beta, alpha, chi and lambda for the timesteps 1..T'."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dits.common.errors import InputError, require

MAX_STEPS = 10_000
"""The highest T' that is accepted, so that a number in a checkpoint cannot fill the memory."""


@dataclass(frozen=True)
class NoiseSchedule:
    """Coefficients per timestep, each of shape (T',); entry k belongs to timestep i = k + 1.

    Attributes:
        beta: variance of the forward process.
        alpha: 1 - beta.
        alpha_bar: running product of alpha.
        chi: step size of the network's output, Equation 8.
        lam: scale of the noise, sqrt(beta); 0 at timestep 1, which has no noise.
    """

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor
    chi: Tensor
    lam: Tensor

    def __len__(self) -> int:
        return len(self.beta)


def linear_schedule(steps: int, beta_start: float = 0.1, beta_end: float = 0.99) -> NoiseSchedule:
    """Compute the linear variance schedule of the paper (section 4.1) in float64.

    chi_i = (1 - alpha_i) / sqrt(alpha_i - alpha_i * alpha_bar_i) (section 3.3); lambda_i^2 = beta_i, as in the
    paper's diffusion baseline (section 3.2). The paper does not say whether the schedule is re-spaced when T'
    changes; here beta runs from `beta_start` to `beta_end` for every T'.

    Raises:
        InputError: `steps` is negative or above MAX_STEPS, or the betas do not satisfy 0 < beta_start <= beta_end < 1.
    """
    require(steps >= 0, f"The number of sampler steps must be 0 or more, not {steps}.")
    require(steps <= MAX_STEPS, f"The number of sampler steps must be {MAX_STEPS:,} or less, not {steps:,}.")
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

"""The DITS sampler and its alignment network: from a text embedding to the aligned embedding v_0.

Equation 8 of the paper, for i = T', ..., 1 and v_{T'} = t:

    v_{i-1} = v_i - chi_i * eps(v_i, i) + lambda_i * z,    z ~ N(0, I) for i > 1, z = 0 at i = 1

The network sees the current point and the timestep, nothing else: an aligned embedding belongs to its sentence and
does not depend on the gallery.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.errors import require
from dits.schedule import linear_schedule


@dataclass(frozen=True)
class AlignmentConfig:
    """The alignment network. Defaults are the paper's (section 4.1); what it leaves open follows DiT.

    Attributes:
        dim: width of the embeddings and of the network (512, section 4.1).
        depth: number of DiT blocks (4, section 4.1).
        heads: attention heads (16, section 4.1).
        mlp_ratio: hidden width of a block's MLP over `dim` (4.0, section 4.1).
        timestep_features: sinusoidal features of the timestep embedding (not stated; DiT's 256).
        zero_init: start modulation and output at zero, as DiT's adaLN-Zero does (not stated). Then v_0 = t before
            training, when noise is off.
        dropout: dropout on the branches of a block (not stated; DiT has none).
    """

    dim: int = 512
    depth: int = 4
    heads: int = 16
    mlp_ratio: float = 4.0
    timestep_features: int = 256
    zero_init: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.heads >= 1 and self.dim % self.heads == 0,
            f"The width {self.dim} cannot be split into {self.heads} attention heads.",
        )
        require(self.depth >= 0 and self.mlp_ratio > 0, "The network needs a depth from 0 and an MLP ratio above 0.")
        require(
            self.timestep_features >= 2 and self.timestep_features % 2 == 0,
            f"The timestep features must be an even number from 2, not {self.timestep_features}.",
        )
        require(0 <= self.dropout < 1, f"The dropout must be from 0 to below 1, not {self.dropout}.")


@dataclass(frozen=True)
class SamplerConfig:
    """The sampler of Equation 8.

    Attributes:
        steps: T' (10; 5 on DiDeMo, section 4.1). 0 leaves the text embedding as it is.
        beta_start: first beta of the linear schedule (0.1, section 4.1).
        beta_end: last beta (0.99, section 4.1).
        noise_scale: factor on lambda while training; 1 is the paper's Equation 8, 0 trains without noise.
        inference_noise_scale: the same at inference. The paper does not say; 0 makes v_0 deterministic.
        normalise_input: scale the text embedding to `input_norm` first (not stated; X-Pool's code does not).
        input_norm: the norm used then. CLIP's projected embeddings have norms of about 10.
    """

    steps: int = 10
    beta_start: float = 0.1
    beta_end: float = 0.99
    noise_scale: float = 1.0
    inference_noise_scale: float = 0.0
    normalise_input: bool = False
    input_norm: float = 10.0

    def __post_init__(self) -> None:
        linear_schedule(self.steps, self.beta_start, self.beta_end)  # refuses what makes no schedule
        require(
            self.noise_scale >= 0 and self.inference_noise_scale >= 0,
            "A noise scale cannot be negative.",
        )
        require(self.input_norm > 0, f"The norm of the input must be above 0, not {self.input_norm}.")


class DitsSampler(nn.Module):
    """Moves text embeddings in T' learned steps towards where their videos lie."""

    chi: Tensor
    lam: Tensor

    def __init__(self, config: SamplerConfig, network: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.network = AlignmentNetwork(network)
        schedule = linear_schedule(config.steps, config.beta_start, config.beta_end)
        self.register_buffer("chi", schedule.chi.float(), persistent=False)
        self.register_buffer("lam", schedule.lam.float(), persistent=False)

    def forward(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`sample`, so that the sampler can be called like any module."""
        return self.sample(text, generator)

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Aligned embeddings v_0 (B, d) of text embeddings (B, d).

        `generator` draws the noise, where there is any; without it the global one does.
        """
        point = text
        for point in self._points(text, generator):  # noqa: B007 - only the last point is wanted
            pass
        return point

    def trajectory(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """All points (T' + 1, B, d) from v_{T'} to v_0, of text embeddings (B, d). The last one is `sample`."""
        return torch.stack(list(self._points(text, generator)))

    def _points(self, text: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        steps = self.config.steps
        scale = self.config.noise_scale if self.training else self.config.inference_noise_scale
        point = text
        if self.config.normalise_input:
            point = F.normalize(point, dim=-1) * self.config.input_norm
        yield point
        if not steps:
            return
        timesteps = torch.arange(1, steps + 1, device=text.device)
        modulations = self.network.modulations(timesteps)
        for i in range(steps, 0, -1):
            k = i - 1
            point = point - self.chi[k] * self.network.move(point, modulations[k])
            if scale and i > 1:
                z = torch.randn(point.shape, generator=generator, device=point.device, dtype=point.dtype)
                point = point + scale * self.lam[k] * z
            yield point


class AlignmentNetwork(nn.Module):
    """eps(v_i, i): a DiT over a one-token sequence (paper, Figure 2 and section 4.1; blocks of Peebles & Xie 2023)."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        d = config.dim
        self.config = config
        self.embed = nn.Linear(d, d)
        self.timestep_in = nn.Linear(config.timestep_features, d)
        self.timestep_out = nn.Linear(d, d)
        self.blocks: list[_DiTBlock] = nn.ModuleList(_DiTBlock(config) for _ in range(config.depth))  # type: ignore[assignment]
        self.final_modulation = nn.Linear(d, 2 * d)
        self.final_linear = nn.Linear(d, d)
        self._initialise()

    def forward(self, point: Tensor, timestep: Tensor) -> Tensor:
        """eps (B, d) at points (B, d) and integer timesteps, (B,) or a scalar."""
        return self.move(point, self._modulation(timestep.reshape(-1)))

    def modulations(self, timesteps: Tensor) -> list[Tensor]:
        """What each timestep (T',) does to the network, for `move`: one pass for all steps of a trajectory.

        The modulation depends on the timestep alone, so a trajectory of any batch size needs it once per step.
        """
        return list(self._modulation(timesteps).unsqueeze(1))

    def move(self, point: Tensor, modulation: Tensor) -> Tensor:
        """eps (B, d) at points (B, d), under a modulation (1 or B, (6 * depth + 2) * d)."""
        *blocks, final = modulation.split([6 * self.config.dim] * self.config.depth + [2 * self.config.dim], -1)
        x = self.embed(point)
        for block, m in zip(self.blocks, blocks, strict=True):
            x = block(x, m)
        shift, scale = final.chunk(2, dim=-1)
        return self.final_linear(_modulate(_norm(x), shift, scale))

    def _modulation(self, timesteps: Tensor) -> Tensor:
        features = timestep_features(timesteps, self.config.timestep_features).to(self.embed.weight.dtype)
        condition = F.silu(self.timestep_out(F.silu(self.timestep_in(features))))
        parts = [block.modulation(condition) for block in self.blocks]
        return torch.cat([*parts, self.final_modulation(condition)], dim=-1)

    def _initialise(self) -> None:
        """DiT's initialisation: Xavier linear maps, N(0, 0.02) timestep MLP, zero modulation and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for linear in (self.timestep_in, self.timestep_out):
            nn.init.normal_(linear.weight, std=0.02)
        if self.config.zero_init:
            for linear in [b.modulation for b in self.blocks] + [self.final_modulation, self.final_linear]:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)


class _DiTBlock(nn.Module):
    """Attention and MLP, each behind a norm that the timestep shifts and scales, each gated by the timestep."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        d, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.heads = config.heads
        self.qkv = nn.Linear(d, 3 * d)
        self.project = nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, d))
        self.modulation = nn.Linear(d, 6 * d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        x = x + gate_a * self.dropout(self._attend(_modulate(_norm(x), shift_a, scale_a)))
        return x + gate_m * self.dropout(self.mlp(_modulate(_norm(x), shift_m, scale_m)))

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention over a sequence of one token.

        A softmax over one key is 1, so every head returns its value: queries and keys cannot matter, and are not
        computed. The fused weight keeps DiT's shape.
        """
        d = x.shape[-1]
        return self.project(F.linear(x, self.qkv.weight[2 * d :], self.qkv.bias[2 * d :]))


def timestep_features(timesteps: Tensor, count: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features (N, count) of timesteps (N,): cosines, then sines, as in DiT's code."""
    half = count // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift

"""The alignment network eps(v_i, i): a DiT over a one-token sequence, given the timestep and an optional condition."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import require


@dataclass(frozen=True)
class AlignmentConfig:
    """The alignment network. Defaults are the paper's (section 4.1), or those of DiT if the paper states none.

    Attributes:
        dim: width of the embeddings and of the network (512, section 4.1).
        depth: number of DiT blocks (4, section 4.1).
        heads: attention heads (16, section 4.1).
        mlp_ratio: hidden width of the MLP of a block, in units of `dim` (4.0, section 4.1).
        timestep_features: sinusoidal features of the timestep embedding (the paper does not say; DiT's 256).
        zero_init: start modulation and output at zero, as DiT's adaLN-Zero does (the paper does not say). Without
            noise, v_0 = t before training.
        block_dropout: dropout on the branches of a block (the paper does not say; DiT has none).
    """

    dim: int = 512
    depth: int = 4
    heads: int = 16
    mlp_ratio: float = 4.0
    timestep_features: int = 256
    zero_init: bool = True
    block_dropout: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.heads >= 1 and self.dim % self.heads == 0,
            f"The width {self.dim} cannot be split into {self.heads} attention heads.",
        )
        require(self.depth >= 0 and self.mlp_ratio > 0, "The depth must be at least 0 and the MLP ratio above 0.")
        require(
            self.timestep_features >= 2 and self.timestep_features % 2 == 0,
            f"The number of timestep features must be even and at least 2, not {self.timestep_features}.",
        )
        require(0 <= self.block_dropout < 1, f"The dropout must be from 0 to below 1, not {self.block_dropout}.")


class AlignmentNetwork(nn.Module):
    """eps(v_i, i): a DiT over a one-token sequence (paper, Figure 2 and section 4.1; blocks of Peebles & Xie 2023).

    A condition c is added to the embedding of the timestep, like the class in DiT.
    """

    def __init__(self, config: AlignmentConfig, condition_dim: int = 0) -> None:
        """`condition_dim` is the width of the condition; 0 means no condition."""
        super().__init__()
        d = config.dim
        self.config = config
        self.condition_in = nn.Linear(condition_dim, d) if condition_dim else None
        self.embed = nn.Linear(d, d)
        self.timestep_in = nn.Linear(config.timestep_features, d)
        self.timestep_out = nn.Linear(d, d)
        self.blocks: list[_DiTBlock] = nn.ModuleList(_DiTBlock(config) for _ in range(config.depth))  # type: ignore[assignment]
        self.final_modulation = nn.Linear(d, 2 * d)
        self.final_linear = nn.Linear(d, d)
        self._initialise()

    def forward(self, point: Tensor, timestep: Tensor, condition: Tensor | None = None) -> Tensor:
        """eps (B, d) at points (B, d) and integer timesteps, (B,) or a scalar, under conditions (B, c)."""
        return self.predict(point, self.modulation(timestep.reshape(-1), condition))

    def modulation(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """The modulation of all layers for timesteps (N,) and conditions (..., c) that broadcast against them.

        Its shape is (N or more, (6 * depth + 2) * d). It does not depend on the point: without a condition a batch
        of trajectories needs one modulation per step.
        """
        features = timestep_features(timesteps, self.config.timestep_features).to(self.embed.weight.dtype)
        embedded = self.timestep_out(F.silu(self.timestep_in(features)))
        if self.condition_in is not None:
            assert condition is not None
            embedded = embedded + self.condition_in(condition)
        embedded = F.silu(embedded)
        parts = [block.modulation(embedded) for block in self.blocks]
        return torch.cat([*parts, self.final_modulation(embedded)], dim=-1)

    def predict(self, point: Tensor, modulation: Tensor) -> Tensor:
        """eps (..., d) at points (..., d), under a modulation (..., (6 * depth + 2) * d) that broadcasts."""
        *blocks, final = modulation.split([6 * self.config.dim] * self.config.depth + [2 * self.config.dim], -1)
        x = self.embed(point)
        for block, m in zip(self.blocks, blocks, strict=True):
            x = block(x, m)
        shift, scale = final.chunk(2, dim=-1)
        return self.final_linear(_modulate(_norm(x), shift, scale))

    def _initialise(self) -> None:
        """The initialisation of DiT: Xavier linear maps, N(0, 0.02) for timestep and condition, zero modulation."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for linear in (self.timestep_in, self.timestep_out, self.condition_in):
            if linear is not None:
                nn.init.normal_(linear.weight, std=0.02)
        if self.config.zero_init:
            for linear in [b.modulation for b in self.blocks] + [self.final_modulation, self.final_linear]:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)


class _DiTBlock(nn.Module):
    """Attention and MLP, each after a norm that is shifted and scaled by the timestep, each gated by the timestep."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        d, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.heads = config.heads
        self.qkv = nn.Linear(d, 3 * d)
        self.project = nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, d))
        self.modulation = nn.Linear(d, 6 * d)
        self.dropout = nn.Dropout(config.block_dropout)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        x = x + gate_a * self.dropout(self._attend(_modulate(_norm(x), shift_a, scale_a)))
        return x + gate_m * self.dropout(self.mlp(_modulate(_norm(x), shift_m, scale_m)))

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention over one token: queries and keys have no effect, because the softmax over one key is 1."""
        d = x.shape[-1]  # the fused weight has the shape that it has in DiT
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

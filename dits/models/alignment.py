"""The interface of text alignments, and two controls that are not in the paper.

An alignment moves a text embedding t to the aligned embedding that videos are ranked by. The DITS sampler is in
`dits.models.sampler`, the baselines of the paper are in `dits.models.baselines`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import require
from dits.models.network import AlignmentConfig, AlignmentNetwork
from dits.models.precision import at_least_single, full_precision


class Alignment(nn.Module):
    """Moves text embeddings (B, d) before they are compared with videos. The base class is the identity."""

    @property
    def pairwise(self) -> bool:
        """Whether the alignment also depends on the video, so that a text alone has no aligned embedding."""
        return False

    @property
    def fitted(self) -> bool:
        """Whether it is computed from data in closed form (`fit`) instead of trained."""
        return False

    @property
    def is_stochastic(self) -> bool:
        """Whether each text gets its own noise at inference, so that identical texts can have different rankings."""
        return False

    def forward(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Same as `sample`, so that an alignment can be called like any module."""
        return self.sample(text, generator)

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Aligned embeddings (B, d) of text embeddings (B, d)."""
        return text

    def trajectory(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points (S + 1, B, d) of the trajectory, from its start to the aligned embedding."""
        return torch.stack([text, self.sample(text, generator)])

    def pair_cosines(
        self, texts: Tensor, pooled: Tensor, frames: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cosines (T, V) of texts (T, d) and videos (T or 1, V, d) pooled by each text; frames are (V, F, d)."""
        return cosines(self.sample(texts, generator), pooled)

    def training_cosines(self, texts: Tensor, pooled: Tensor, frames: Tensor) -> list[tuple[float, Tensor]]:
        """The matrices of cosines (B, B) of a batch of pairs, each with the weight of its contrastive loss."""
        return [(1.0, self.pair_cosines(texts, pooled, frames))]

    def regression_loss(self, texts: Tensor, targets: Tensor, power: int) -> Tensor:
        """Mean |aligned - target|^power of texts (B, d) and targets (B, d): the losses of Table 7, on the end point."""
        return (self.sample(texts) - targets).abs().pow(power).mean()

    def fit(self, texts: Tensor, videos: Tensor) -> None:
        """Computes the fitted values from pairs of texts (N, d) and videos (N, d), if the alignment is fitted."""


class MeanShift(Alignment):
    """t + the mean gap between unit texts and unit videos: closes the gap without training (Liang et al. 2022)."""

    shift: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(dim))

    @property
    def fitted(self) -> bool:
        """True: the shift is the mean gap of the training pairs."""
        return True

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The unit texts plus the shift; in training the texts themselves, because only the pooling is trained."""
        return text if self.training else F.normalize(text, dim=-1) + self.shift

    @torch.no_grad()
    def fit(self, texts: Tensor, videos: Tensor) -> None:
        """Sets the shift to the mean of the unit videos minus the mean of the unit texts."""
        self.shift.copy_(F.normalize(videos, dim=-1).mean(dim=0) - F.normalize(texts, dim=-1).mean(dim=0))


class ResidualMLP(Alignment):
    """t + MLP(t): the number of blocks and parameters of the alignment network, but one step and no timestep.

    A control (not in the paper) for what the sampler's steps and schedule add. With `zero_init` the last linear layer
    starts at zero, so that the aligned embedding equals the text before training.
    """

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        d = config.dim
        parameters = sum(p.numel() for p in AlignmentNetwork(config).parameters())
        hidden = max(1, round((parameters - d * d) / (2 * d * max(1, config.depth))))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(d, elementwise_affine=False, eps=1e-6),
                nn.Linear(d, hidden),
                nn.GELU(approximate="tanh"),
                nn.Linear(hidden, d),
                nn.Dropout(config.block_dropout),
            )
            for _ in range(config.depth)
        )
        self.final = nn.Linear(d, d)
        if config.zero_init:
            nn.init.zeros_(self.final.weight)
            nn.init.zeros_(self.final.bias)

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Aligned embeddings (B, d) of text embeddings (B, d)."""
        x = text
        for block in self.blocks:
            x = x + block(x)
        return text + self.final(F.layer_norm(x, x.shape[-1:], eps=1e-6))


def cosines(aligned: Tensor, pooled: Tensor) -> Tensor:
    """Cosines (T, V) of aligned embeddings (T, d) and videos (T or 1, V, d) pooled by each text."""
    aligned, pooled = at_least_single(aligned), at_least_single(pooled)
    with full_precision(pooled):
        return (F.normalize(pooled, dim=-1) @ F.normalize(aligned, dim=-1)[..., None]).squeeze(-1)


def noise_generator(alignment: Alignment, seed: int, like: Tensor) -> torch.Generator | None:
    """The default source of noise: in training the global generator (None), at inference a new one with the seed."""
    return None if alignment.training else torch.Generator(like.device).manual_seed(seed)


def normal_like(point: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape of `point`, from a generator or (None) the global one."""
    return torch.randn(point.shape, generator=generator, device=point.device, dtype=point.dtype)


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises InputError unless the value is one of the choices."""
    require(value in choices, f"The {name} must be one of {', '.join(choices)}, not '{value}'.")

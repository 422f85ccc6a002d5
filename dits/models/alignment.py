"""What stands between a text embedding and the cosine: the interface, and the simple alignments.

An alignment moves a text embedding t to the embedding that stands for it when videos are ranked. DITS's sampler is one
(dits.models.sampler), the baselines of the paper are others (dits.models.baselines); here are the interface and the
controls that the paper lacks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import require
from dits.models.network import AlignmentConfig, AlignmentNetwork


class Alignment(nn.Module):
    """Moves text embeddings (B, d) before they are compared with videos. The base class leaves them where they are."""

    @property
    def pairwise(self) -> bool:
        """Whether it needs the video as well, so that it has no aligned embedding of a text alone."""
        return False

    @property
    def fitted(self) -> bool:
        """Whether it is fitted to data by arithmetic (`fit`) rather than trained."""
        return False

    @property
    def draws(self) -> bool:
        """Whether every text meets noise of its own at inference, so that identical texts can rank differently."""
        return False

    def forward(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`sample`, so that an alignment can be called like any module."""
        return self.sample(text, generator)

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Aligned embeddings (B, d) of text embeddings (B, d)."""
        return text

    def trajectory(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points (S + 1, B, d) from where the way begins to the aligned embedding."""
        return torch.stack([text, self.sample(text, generator)])

    def pair_cosines(
        self, texts: Tensor, pooled: Tensor, frames: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cosines (T, V) of texts (T, d) and videos, pooled by each text: (T or 1, V, d); frames are (V, F, d)."""
        return cosines(self.sample(texts, generator), pooled)

    def training_cosines(self, texts: Tensor, pooled: Tensor, frames: Tensor) -> list[tuple[float, Tensor]]:
        """Cosines (B, B) of a batch of pairs, with the weight of each one's contrastive loss."""
        return [(1.0, self.pair_cosines(texts, pooled, frames))]

    def regression_loss(self, texts: Tensor, targets: Tensor, power: int) -> Tensor:
        """Mean |aligned - target|^power over texts (B, d) and targets (B, d): Table 7's losses, on the end point."""
        return (self.sample(texts) - targets).abs().pow(power).mean()

    def fit(self, texts: Tensor, videos: Tensor) -> None:
        """Sets what is fitted by arithmetic, from pairs (N, d) and (N, d)."""


class MeanShift(Alignment):
    """t + the mean gap between unit texts and unit videos: closes the gap without learning (Liang et al. 2022)."""

    shift: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(dim))

    @property
    def fitted(self) -> bool:
        """It is: the shift is the mean gap of the training pairs."""
        return True

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Unit texts moved by the shift; in training the texts themselves, for what is trained is the pooling."""
        return text if self.training else F.normalize(text, dim=-1) + self.shift

    @torch.no_grad()
    def fit(self, texts: Tensor, videos: Tensor) -> None:
        """The shift is the mean of the unit videos less the mean of the unit texts."""
        self.shift.copy_(F.normalize(videos, dim=-1).mean(dim=0) - F.normalize(texts, dim=-1).mean(dim=0))


class ResidualMLP(Alignment):
    """t + MLP(t): as many blocks and parameters as the alignment network, but one step and no timestep.

    Control for what the sampler's steps and schedule add (not in the paper). A last linear map that starts at zero
    leaves the text where it is before training.
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
    """Cosines (T, V) of aligned embeddings (T, d) and videos, pooled by each text: (T or 1, V, d)."""
    return (F.normalize(pooled, dim=-1) @ F.normalize(aligned, dim=-1)[..., None]).squeeze(-1)


def noise_source(alignment: Alignment, seed: int, like: Tensor) -> torch.Generator | None:
    """Where noise comes from if nobody says: the global generator (None) in training, a seeded one at inference.

    At inference every call begins at the seed: the same texts in the same order get the same noise.
    """
    return None if alignment.training else torch.Generator(like.device).manual_seed(seed)


def normal_like(point: Tensor, source: torch.Generator | None) -> Tensor:
    """Standard normal noise of a point's shape, from a generator or the global one."""
    return torch.randn(point.shape, generator=source, device=point.device, dtype=point.dtype)


def one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises InputError unless the value is one of the choices."""
    require(value in choices, f"The {name} is one of {', '.join(choices)}, not '{value}'.")

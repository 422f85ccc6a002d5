"""Retrieval models: an encoder's embeddings, a pooling and an alignment, as one module with a method."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import InputError
from dits.models.alignment import Alignment, MeanShift, ResidualMLP, cosines
from dits.models.baselines import (
    DiffusionAlignment,
    DiffusionConfig,
    FixedPrior,
    PriorConfig,
    StochasticConfig,
    StochasticText,
)
from dits.models.losses import symmetric_cross_entropy
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig, XPool, mean_pool
from dits.models.sampler import DitsSampler, SamplerConfig


@dataclass(frozen=True)
class Method:
    """An entry of the registry.

    Attributes:
        title: as tables print it.
        parts: the sections of `ModelConfig` that it reads, besides `pooling`.
        source: where it is described.
        pooling: what can be chosen of its pooling: fields of `PoolingConfig`.
        build: makes its alignment from the model's configuration; by default the one that moves nothing.
    """

    title: str
    parts: tuple[str, ...]
    source: str
    pooling: tuple[str, ...] = ("kind", "attend_with", "dropout")
    build: "Callable[[ModelConfig], Alignment]" = lambda config: Alignment()


METHODS = {
    "mean": Method("Mean pooling", (), "CLIP4Clip's meanP (Luo et al. 2021)", ()),
    "xpool": Method("X-Pool", (), "Gorti et al. 2022", ("dropout",)),
    "tmass": Method(
        "T-MASS", ("stochastic",), "Wang et al. 2024, its evaluation mended", ("kind", "dropout"),
        build=lambda config: StochasticText(config.stochastic, config.pooling.dim),
    ),
    "prior": Method(
        "Fixed prior", ("prior",), "DITS paper, section 3.1 and Table 4",
        build=lambda config: FixedPrior(config.prior),
    ),
    "diffusion": Method(
        "Diffusion-based alignment", ("diffusion", "network"), "DITS paper, section 3.2 and Table 4",
        build=lambda config: DiffusionAlignment(config.diffusion, config.network),
    ),
    "dits": Method(
        "DITS", ("sampler", "network"), "DITS paper, section 3.3",
        build=lambda config: DitsSampler(config.sampler, config.network),
    ),
    "mlp": Method(
        "Residual MLP", ("network",), "control of ours: one step of the same size",
        build=lambda config: ResidualMLP(config.network),
    ),
    "shift": Method(
        "Mean shift", (), "control of ours: the mean gap added (Liang et al. 2022)",
        build=lambda config: MeanShift(config.pooling.dim),
    ),
}  # fmt: skip
"""Every method that can be trained and evaluated, by name."""

SEARCH_METHODS = ("mean", "xpool", "dits")
"""The methods that search ranks by: the app offers them, and the repository ships their weights."""

_MAX_LOGIT_SCALE = math.log(100)
_PAIRS_AT_ONCE = 32


@dataclass(frozen=True)
class ModelConfig:
    """What a retrieval model is made of. A method reads the pooling and the parts that the registry names."""

    method: str = "dits"
    pooling: PoolingConfig = field(default_factory=PoolingConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    network: AlignmentConfig = field(default_factory=AlignmentConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    stochastic: StochasticConfig = field(default_factory=StochasticConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"There is no method '{self.method}': choose one of {', '.join(METHODS)}.")

    def sections(self) -> dict[str, dict[str, Any]]:
        """Every section as a dictionary, whether the method reads it or not."""
        return {name: asdict(getattr(self, name)) for name in PARTS}

    def as_dict(self) -> dict[str, Any]:
        """The configuration of the parts that the method reads, as JSON values; `from_dict` reads it back."""
        parts = ("pooling", *METHODS[self.method].parts)
        return {"method": self.method} | {part: asdict(getattr(self, part)) for part in parts}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The configuration that `as_dict` wrote.

        Raises:
            InputError: an entry is unknown or of the wrong kind.
        """
        try:
            names = ("pooling", *METHODS[values["method"]].parts) if values["method"] in METHODS else ()
            return cls(method=values["method"], **{name: PARTS[name](**values[name]) for name in names})
        except (AttributeError, KeyError, TypeError, ArithmeticError) as error:
            raise InputError(f"The model configuration cannot be read: {error}.") from error


PARTS: dict[str, Any] = {part.name: part.default_factory for part in fields(ModelConfig) if part.name != "method"}
"""The classes of `ModelConfig`'s sections, by name."""
"""The sections of `ModelConfig`."""


class RetrievalModel(nn.Module):
    """Scores texts against videos, from an encoder's embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor(_MAX_LOGIT_SCALE))
        self.pooling = None if config.method == "mean" or config.pooling.kind == "mean" else XPool(config.pooling)
        self.alignment = METHODS[config.method].build(config)

    def align(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The embeddings (T, d) that stand for the texts (T, d) in the cosine: v_0 under DITS.

        Raises:
            InputError: the method has none, because it looks at text and video together.
        """
        if self.alignment.pairwise:
            raise InputError("This method moves every pair of text and video: a text alone has no aligned embedding.")
        return self.alignment.sample(texts, generator)

    def trajectory(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points (S + 1, T, d) from texts (T, d) to their aligned embeddings; without a way the texts alone.

        Raises:
            InputError: as `align` does.
        """
        if type(self.alignment) is Alignment:
            return texts[None]
        if self.alignment.pairwise:
            raise InputError("This method moves every pair of text and video: a text alone has no trajectory.")
        return self.alignment.trajectory(texts, generator)

    def similarity(self, texts: Tensor, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Cosines (T, V) of texts (T, d) and videos' frames (V, F, d): the plain definition, with gradients."""
        if self._attends_with_aligned:  # one draw of v_0 both attends and is compared
            aligned = self.align(texts, generator)
            assert self.pooling is not None
            return cosines(aligned, self.pooling(aligned, frames))
        return self.alignment.pair_cosines(texts, self.pooled(texts, frames), frames, generator)

    def pooled(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Videos (V, F, d) pooled by each text (T, d): (T, V, d); by mean pooling (1, V, d), the same for all."""
        if self.pooling is None:
            return mean_pool(frames)[None]
        return self.pooling(self.align(texts) if self._attends_with_aligned else texts, frames)

    @property
    def _attends_with_aligned(self) -> bool:
        return self.pooling is not None and self.config.pooling.attend_with == "aligned"

    def loss(
        self, texts: Tensor, frames: Tensor, ignored: Tensor | None = None, objective: str = "contrastive"
    ) -> Tensor:
        """The training loss (scalar) of a batch of pairs: texts (B, d) and their videos' frames (B, F, d).

        Args:
            ignored: (B, B) marks pairs of a text and a video that are no negatives.
            objective: "contrastive" (Equation 2), or "l2" or "l1" between the aligned text and its video as it is
                pooled, scaled to the text's norm, since only directions count in the cosine (Equation 6, Table 7). No
                gradient reaches the video then.

        Raises:
            InputError: the method has no aligned embedding of a text alone to regress.
        """
        if objective == "contrastive":
            if self._attends_with_aligned:
                parts = [(1.0, self.similarity(texts, frames))]
            else:
                parts = self.alignment.training_cosines(texts, self.pooled(texts, frames), frames)
            losses = [weight * symmetric_cross_entropy(cos, self.logit_scale, ignored) for weight, cos in parts]
            return torch.stack(losses).sum()
        if self.alignment.pairwise:
            raise InputError("The l1 and l2 objectives need a method that moves the text alone.")
        if not any(p.requires_grad for p in self.alignment.parameters()):
            raise InputError(f"The method {self.config.method} has nothing that the l1 and l2 objectives could train.")
        targets = F.normalize(self._fixed_videos(texts, frames), dim=-1) * texts.norm(dim=-1, keepdim=True)
        return self.alignment.regression_loss(texts, targets, {"l1": 1, "l2": 2}[objective])

    @torch.no_grad()
    def _fixed_videos(self, texts: Tensor, frames: Tensor) -> Tensor:
        """`own_videos` as inference has them, without dropout, whatever mode the model is in."""
        training = self.training
        self.eval()
        try:
            return self.own_videos(texts, frames)
        finally:
            self.train(training)

    def own_videos(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Embeddings (B, d) of each text's own video (B, F, d), as that text pools it, not normalised."""
        if self.pooling is None:
            return mean_pool(frames)
        blocks = zip(texts.split(_PAIRS_AT_ONCE), frames.split(_PAIRS_AT_ONCE), strict=True)
        own = [self.pooled(t, f).diagonal(dim1=0, dim2=1).T for t, f in blocks]
        return torch.cat(own)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the temperature factor at 100 or below, as CLIP and X-Pool's code do."""
        self.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)

"""Retrieval models: the registry of methods, and the module that combines a pooling with an alignment."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import InputError, require
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
from dits.models.precision import at_least_single
from dits.models.sampler import DitsSampler, SamplerConfig


@dataclass(frozen=True)
class Method:
    """An entry of the registry.

    Attributes:
        title: name in tables.
        parts: sections of `ModelConfig` that the method reads, besides `pooling`.
        source: publication that describes the method.
        pooling: fields of `PoolingConfig` that can be chosen for the method.
        build: builds the alignment from the model's configuration; by default the identity.
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
        "T-MASS", ("stochastic",), "Wang et al. 2024, with corrected evaluation", ("kind", "dropout"),
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
        "Residual MLP", ("network",), "our control: one step of the same size",
        build=lambda config: ResidualMLP(config.network),
    ),
    "shift": Method(
        "Mean shift", (), "our control: the mean gap added (Liang et al. 2022)",
        build=lambda config: MeanShift(config.pooling.dim),
    ),
}  # fmt: skip
"""Every method that can be trained and evaluated, by name."""

SEARCH_METHODS = ("mean", "xpool", "dits")
"""The methods for search: the app offers them, and the repository ships their weights."""

MAX_TEMPERATURE = 100.0
"""The largest factor of the cosines in the loss, as in the code of CLIP and X-Pool."""

_PAIRS_PER_BLOCK = 32


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a retrieval model. A method reads the pooling and the parts that the registry names."""

    method: str = "dits"
    pooling: PoolingConfig = field(default_factory=PoolingConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    network: AlignmentConfig = field(default_factory=AlignmentConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    stochastic: StochasticConfig = field(default_factory=StochasticConfig)

    def __post_init__(self) -> None:
        require(self.method in METHODS, f"There is no method '{self.method}': choose one of {', '.join(METHODS)}.")

    def sections(self) -> dict[str, dict[str, Any]]:
        """Every section as a dictionary, whether the method reads it or not."""
        return {name: asdict(getattr(self, name)) for name in PARTS}

    def as_dict(self) -> dict[str, Any]:
        """The sections that the method reads, as JSON values; `from_dict` reads them back."""
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


class RetrievalModel(nn.Module):
    """Scores texts against videos, given the embeddings of an encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor(math.log(MAX_TEMPERATURE)))
        self.pooling = None if config.method == "mean" or config.pooling.kind == "mean" else XPool(config.pooling)
        self.alignment = METHODS[config.method].build(config)

    def align(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Aligned embeddings (T, d) of texts (T, d), which are compared with the videos: v_0 under DITS.

        Raises:
            InputError: the method is pairwise: the aligned embedding also depends on the video.
        """
        if self.alignment.pairwise:
            raise InputError("This method aligns every pair of text and video: a text alone has no aligned embedding.")
        return self.alignment.sample(texts, generator)

    def trajectory(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points (S + 1, T, d) from texts (T, d) to aligned embeddings; without an alignment the texts (1, T, d).

        Raises:
            InputError: as `align` does.
        """
        if type(self.alignment) is Alignment:
            return texts[None]
        if self.alignment.pairwise:
            raise InputError("This method aligns every pair of text and video: a text alone has no trajectory.")
        return self.alignment.trajectory(texts, generator)

    def similarity(self, texts: Tensor, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Cosines (T, V) of texts (T, d) and videos' frames (V, F, d): the plain definition, with gradients."""
        if self._attends_with_aligned:  # the same sample of v_0 is used for the attention and for the cosine
            aligned = self.align(texts, generator)
            assert self.pooling is not None
            return cosines(aligned, self.pooling(aligned, frames))
        return self.alignment.pair_cosines(texts, self.pooled(texts, frames), frames, generator)

    def pooled(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Videos (V, F, d) pooled by each text (T, d): (T, V, d); (1, V, d) under mean pooling, the same for all."""
        if self.pooling is None:
            return mean_pool(frames)[None]
        attending = self.align(texts) if self._attends_with_aligned else texts
        return at_least_single(self.pooling(attending, frames))

    @property
    def _attends_with_aligned(self) -> bool:
        return self.pooling is not None and self.config.pooling.attend_with == "aligned"

    def loss(
        self,
        texts: Tensor,
        frames: Tensor,
        ignored: Tensor | None = None,
        objective: str = "contrastive",
        alignment_weight: float = 0.0,
    ) -> Tensor:
        """The training loss (scalar) of a batch of pairs: texts (B, d) and their videos' frames (B, F, d).

        Args:
            ignored: (B, B) mask of pairs of a text and a video that are not negatives.
            objective: "contrastive" (Equation 2), or "l2" or "l1" between the aligned text and its pooled video
                (Equation 6, Table 7). The video is scaled to the norm of the text, because only the direction matters
                for the cosine, and gets no gradient.
            alignment_weight: weight of the mean of 1 - cosine of each aligned text and its own video, which is added to
                the contrastive loss (not in the paper). The cosines are those of the contrastive loss (in T-MASS of the
                sampled text), so they cost nothing, and text and video both get their gradient.

        Raises:
            InputError: the objective is l1 or l2, and the method is pairwise or its alignment has no parameters.
        """
        if objective == "contrastive":
            if self._attends_with_aligned:
                parts = [(1.0, self.similarity(texts, frames))]
            else:
                parts = self.alignment.training_cosines(texts, self.pooled(texts, frames), frames)
            losses = [weight * symmetric_cross_entropy(cos, self.logit_scale, ignored) for weight, cos in parts]
            loss = torch.stack(losses).sum()
            if alignment_weight:
                loss = loss + alignment_weight * (1 - parts[0][1].diagonal()).mean()
            return loss
        if self.alignment.pairwise:
            raise InputError("The l1 and l2 objectives need a method that aligns the text alone.")
        if not any(p.requires_grad for p in self.alignment.parameters()):
            raise InputError(f"The alignment of {self.config.method} has no parameters for the l1 or l2 objective.")
        targets = F.normalize(self._fixed_videos(texts, frames), dim=-1) * texts.norm(dim=-1, keepdim=True)
        return self.alignment.regression_loss(texts, targets, {"l1": 1, "l2": 2}[objective])

    @torch.no_grad()
    def _fixed_videos(self, texts: Tensor, frames: Tensor) -> Tensor:
        """`own_videos` without dropout, in training too."""
        training = self.training
        self.eval()
        try:
            return self.own_videos(texts, frames)
        finally:
            self.train(training)

    def own_videos(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Embeddings (B, d) of each text's own video (B, F, d) pooled by that text, not normalised."""
        if self.pooling is None:
            return mean_pool(frames)
        # cloned, because a view would keep all videos of its block
        blocks = zip(texts.split(_PAIRS_PER_BLOCK), frames.split(_PAIRS_PER_BLOCK), strict=True)
        return torch.cat([self.pooled(t, f).diagonal(dim1=0, dim2=1).T.clone() for t, f in blocks])

    @property
    def temperature(self) -> float:
        """The factor of the cosines in the loss; `logit_scale` is its logarithm."""
        return float(self.logit_scale.detach().exp())

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Sets the factor of the cosines in the loss."""
        self.logit_scale.fill_(math.log(temperature))

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Limits the temperature to `MAX_TEMPERATURE`."""
        self.logit_scale.clamp_(max=math.log(MAX_TEMPERATURE))

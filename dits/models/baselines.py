"""The alignments that the paper compares DITS with: a fixed prior, T-MASS's stochastic text, and a diffusion model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import require
from dits.models.alignment import Alignment, noise_source, normal_like, one_of
from dits.models.network import AlignmentConfig, AlignmentNetwork
from dits.models.schedule import linear_schedule


@dataclass(frozen=True)
class PriorConfig:
    """The fixed prior (section 3.1, Table 4): t + delta with delta ~ N(0, variance).

    Attributes:
        variance: sigma^2 (1.0 and 0.1 in Table 4).
        prior_at_inference: draw at inference too, as in training (not stated; the fall of Table 4 suggests it).
        inference_seed: of what is drawn at inference.
    """

    variance: float = 1.0
    prior_at_inference: bool = True
    inference_seed: int = 0

    def __post_init__(self) -> None:
        require(self.variance >= 0, f"The variance cannot be negative: {self.variance}.")


class FixedPrior(Alignment):
    """The text embedding with a gap drawn from a fixed normal distribution."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def draws(self) -> bool:
        """Whether every text meets noise of its own at inference."""
        return self.config.prior_at_inference and self.config.variance > 0

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """t + delta (B, d) of text embeddings (B, d)."""
        if not (self.training or self.config.prior_at_inference):
            return text
        source = generator or noise_source(self, self.config.inference_seed, text)
        return text + self.config.variance**0.5 * normal_like(text, source)


@dataclass(frozen=True)
class StochasticConfig:
    """T-MASS's stochastic text (Wang et al. 2024). Defaults are those of its code.

    Attributes:
        text_noise: "uniform" draws from [0, 1) (its default), "normal" from N(0, text_noise_std) (LSMDC).
        text_noise_std: standard deviation of the normal noise (3e-3 on LSMDC).
        support_weight: weight of the support text's loss (0.8 on MSR-VTT, 0 elsewhere).
        text_samples: draws per text and video at inference, of which the nearest to the video counts (20).
        inference_seed: of those draws.
    """

    text_noise: str = "uniform"
    text_noise_std: float = 3e-3
    support_weight: float = 0.8
    text_samples: int = 20
    inference_seed: int = 0

    def __post_init__(self) -> None:
        one_of("text noise", self.text_noise, ("uniform", "normal"))
        require(self.text_noise_std >= 0 and self.support_weight >= 0, "Noise and support weight cannot be negative.")
        require(self.text_samples >= 1, "T-MASS needs at least one sample of each text.")


class StochasticText(Alignment):
    """A text as a region: t + noise * R, its radius R a function of the text's cosines with a video's frames.

    R = exp(W cos(t, f_1..f_F) + b), one value per dimension. In training a text's radius comes from its own video. For
    ranking, the radius of (text j, video i) comes from video i, as does the pooled video, which text j pools: the
    released code pools video i with its own caption instead, which inflates its results.
    """

    def __init__(self, config: StochasticConfig, dim: int, frames: int = 12) -> None:
        """`frames`: of a video, F; the radius is a function of so many cosines."""
        super().__init__()
        self.config = config
        self.radius = nn.Linear(frames, dim)
        nn.init.eye_(self.radius.weight)
        nn.init.zeros_(self.radius.bias)

    @property
    def pairwise(self) -> bool:
        """It does: every video gives the text a radius of its own."""
        return True

    def pair_cosines(
        self, texts: Tensor, pooled: Tensor, frames: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The best cosine (T, V) of the samples of each text, by the radius that each video gives it."""
        cosines = torch.einsum("td,vfd->tvf", F.normalize(texts, dim=-1), F.normalize(frames, dim=-1))
        scale = self._radius(cosines)  # (T, V, d)
        source = generator or noise_source(self, self.config.inference_seed, texts)
        best = texts.new_full(scale.shape[:2], -torch.inf)
        for _ in range(self.config.text_samples):
            point = texts[:, None] + self._noise(texts[:1], source) * scale
            best = torch.maximum(best, F.cosine_similarity(point, pooled, dim=-1))
        return best

    def training_cosines(self, texts: Tensor, pooled: Tensor, frames: Tensor) -> list[tuple[float, Tensor]]:
        """Cosines (B, B) of the sampled texts, and of the support texts, on the way to the mean pooled video."""
        own = torch.einsum("td,tfd->tf", F.normalize(texts, dim=-1), F.normalize(frames, dim=-1))
        scale = self._radius(own)  # (B, d)
        videos = F.normalize(pooled, dim=-1)
        centre = pooled.mean(dim=0)  # (B, d): each text's own video, pooled by all texts of the batch
        points = [(1.0, texts + self._noise(texts, None) * scale)]
        if self.config.support_weight:
            points.append((self.config.support_weight, texts + F.normalize(centre - texts, dim=-1) * scale))
        return [(weight, (videos @ F.normalize(p, dim=-1)[..., None]).squeeze(-1)) for weight, p in points]

    def _radius(self, cosines: Tensor) -> Tensor:
        frames = self.radius.in_features
        require(cosines.shape[-1] == frames, f"T-MASS's radius is of {frames} frames a video, not {cosines.shape[-1]}.")
        return self.radius(cosines).exp()

    def _noise(self, like: Tensor, source: torch.Generator | None) -> Tensor:
        if self.config.text_noise == "normal":
            return self.config.text_noise_std * normal_like(like, source)
        return torch.rand(like.shape, generator=source, device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion-based alignment (section 3.2): a DDPM over delta = v - t, conditioned on the text.

    Attributes:
        steps: T (10, section 4.1).
        beta_start: first beta of the linear schedule (0.1, section 4.1).
        beta_end: last beta (0.99, section 4.1).
        longest_gap: a predicted delta_0 is shortened to this many times the text's norm, as DDPM's code clips what it
            predicts. Not in the paper: 0 leaves Equation 7 as it stands. With this schedule Equation 7 multiplies the
            network's errors by 1 / sqrt(alpha_i), 10 at the first step and 480 over all.
        inference_samples: draws of delta that are averaged at inference (not stated; 1).
        inference_seed: of those draws.
    """

    steps: int = 10
    beta_start: float = 0.1
    beta_end: float = 0.99
    longest_gap: float = 0.0
    inference_samples: int = 1
    inference_seed: int = 0

    def __post_init__(self) -> None:
        linear_schedule(self.steps, self.beta_start, self.beta_end)  # refuses what makes no schedule
        require(self.steps >= 1, "A diffusion model needs at least one step.")
        require(self.longest_gap >= 0, f"The longest gap cannot be negative: {self.longest_gap}.")
        require(self.inference_samples >= 1, "The gap is averaged over at least one sample.")


class DiffusionAlignment(Alignment):
    """t + delta_0, delta_0 drawn by the reverse process of a DDPM that starts at Gaussian noise (Equations 5 to 7)."""

    alpha: Tensor
    alpha_bar: Tensor
    beta: Tensor

    def __init__(self, config: DiffusionConfig, network: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.network = AlignmentNetwork(network, network.dim)
        schedule = linear_schedule(config.steps, config.beta_start, config.beta_end)
        for name in ("alpha", "alpha_bar", "beta"):
            self.register_buffer(name, getattr(schedule, name).float(), persistent=False)

    @property
    def draws(self) -> bool:
        """Whether every text meets noise of its own at inference: its path begins at such noise."""
        return True

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """t + delta_0 (B, d) of text embeddings (B, d); at inference the mean over the samples that are drawn."""
        source = generator or noise_source(self, self.config.inference_seed, text)
        samples = 1 if self.training else self.config.inference_samples
        ends = []
        for _ in range(samples):
            *_, end = self._points(text, source)
            ends.append(end)
        return torch.stack(ends).mean(dim=0)

    def trajectory(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points t + delta_i (T + 1, B, d), from t + Gaussian noise to the aligned embedding of one draw."""
        return torch.stack(list(self._points(text, generator or noise_source(self, self.config.inference_seed, text))))

    def regression_loss(self, texts: Tensor, targets: Tensor, power: int) -> Tensor:
        """Mean |eps - network|^power at a random timestep of each row (Equation 6 with power 2; Table 7 also has 1)."""
        steps = torch.randint(self.config.steps, (len(texts),), device=texts.device)
        noise = normal_like(texts, None)
        signal = self.alpha_bar[steps, None]
        delta = signal.sqrt() * (targets - texts) + (1 - signal).sqrt() * noise
        return (noise - self.network(delta, steps + 1, texts)).abs().pow(power).mean()

    def _points(self, text: Tensor, source: torch.Generator | None) -> Iterator[Tensor]:
        """Equation 7: delta_{i-1} = (delta_i - (1 - alpha_i) / sqrt(1 - abar_i) eps) / sqrt(alpha_i) + sigma_i z."""
        delta = normal_like(text, source)
        yield text + delta
        for i in range(self.config.steps, 0, -1):
            k = i - 1
            eps = self.network(delta, torch.full((len(text),), i, device=text.device), text)
            delta = self._mean_before(delta, eps, k, text)
            if i > 1:
                delta = delta + self.beta[k].sqrt() * normal_like(text, source)
            yield text + delta

    def _mean_before(self, delta: Tensor, eps: Tensor, k: int, text: Tensor) -> Tensor:
        """The mean of delta_{i-1} (B, d) from delta_i and its noise, k = i - 1: by Equation 7, or a bounded delta_0."""
        alpha, signal = self.alpha[k], self.alpha_bar[k]
        if not self.config.longest_gap:
            return (delta - (1 - alpha) / (1 - signal).sqrt() * eps) / alpha.sqrt()
        end = (delta - (1 - signal).sqrt() * eps) / signal.sqrt()
        longest = self.config.longest_gap * text.norm(dim=-1, keepdim=True)
        end = end * (longest / end.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        before = self.alpha_bar[k - 1] if k else torch.ones_like(signal)
        of_end, of_delta = before.sqrt() * self.beta[k], alpha.sqrt() * (1 - before)
        return (of_end * end + of_delta * delta) / (1 - signal)

"""The alignments that the paper compares DITS with: a fixed prior, the stochastic text of T-MASS, a diffusion model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import require
from dits.models.alignment import Alignment, noise_generator, normal_like, require_choice
from dits.models.network import AlignmentConfig, AlignmentNetwork
from dits.models.precision import full_precision
from dits.models.schedule import linear_schedule


@dataclass(frozen=True)
class PriorConfig:
    """The fixed prior (section 3.1, Table 4): t + delta with delta ~ N(0, variance).

    Attributes:
        variance: sigma^2 (1.0 and 0.1 in Table 4).
        prior_at_inference: draw at inference too (the paper does not say; its low recall in Table 4 suggests it).
        inference_seed: seed of the noise at inference.
    """

    variance: float = 1.0
    prior_at_inference: bool = True
    inference_seed: int = 0

    def __post_init__(self) -> None:
        require(self.variance >= 0, f"The variance cannot be negative: {self.variance}.")


class FixedPrior(Alignment):
    """The text embedding plus a gap drawn from a fixed normal distribution."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def is_stochastic(self) -> bool:
        """Whether each text gets its own noise at inference."""
        return self.config.prior_at_inference and self.config.variance > 0

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """t + delta (B, d) of text embeddings (B, d)."""
        if not (self.training or self.config.prior_at_inference):
            return text
        generator = generator or noise_generator(self, self.config.inference_seed, text)
        return text + self.config.variance**0.5 * normal_like(text, generator)


@dataclass(frozen=True)
class StochasticConfig:
    """The stochastic text of T-MASS (Wang et al. 2024). Defaults are those of its code.

    Attributes:
        text_noise: "uniform" draws from [0, 1) (its default), "normal" from N(0, text_noise_std) (LSMDC).
        text_noise_std: standard deviation of the normal noise (3e-3 on LSMDC).
        support_weight: weight of the loss of the support text (0.8 on MSR-VTT, 0 on other corpora).
        text_samples: samples per text and video at inference (20); the one nearest to the video gives the score.
        inference_seed: seed of these samples.
    """

    text_noise: str = "uniform"
    text_noise_std: float = 3e-3
    support_weight: float = 0.8
    text_samples: int = 20
    inference_seed: int = 0

    def __post_init__(self) -> None:
        require_choice("text noise", self.text_noise, ("uniform", "normal"))
        require(self.text_noise_std >= 0 and self.support_weight >= 0, "Noise and support weight cannot be negative.")
        require(self.text_samples >= 1, "T-MASS needs at least one sample of each text.")


class StochasticText(Alignment):
    """A text as a region: t + noise * R. The radius R depends on the cosines of the text with the frames of a video.

    R = exp(W cos(t, f_1..f_F) + b), one value per dimension. In training the radius of a text comes from its own video.
    For ranking, the pair of text j and video i uses the radius from video i, and video i pooled by text j. The released
    code pools video i with its own caption instead, which inflates its results.
    """

    def __init__(self, config: StochasticConfig, dim: int, frames: int = 12) -> None:
        """`frames` is F, the number of frames of a video and of inputs of the radius."""
        super().__init__()
        self.config = config
        self.radius = nn.Linear(frames, dim)
        nn.init.eye_(self.radius.weight)
        nn.init.zeros_(self.radius.bias)

    @property
    def pairwise(self) -> bool:
        """True: the radius of a text depends on the video."""
        return True

    def pair_cosines(
        self, texts: Tensor, pooled: Tensor, frames: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The highest cosine (T, V) over the samples of each text, with the radius of each pair of text and video."""
        cosines = torch.einsum("td,vfd->tvf", F.normalize(texts, dim=-1), F.normalize(frames, dim=-1))
        scale = self._radius(cosines)  # (T, V, d)
        generator = generator or noise_generator(self, self.config.inference_seed, texts)
        best = texts.new_full(scale.shape[:2], -torch.inf)
        for _ in range(self.config.text_samples):
            point = texts[:, None] + self._noise(texts[:1], generator) * scale
            best = torch.maximum(best, F.cosine_similarity(point, pooled, dim=-1))
        return best

    def training_cosines(self, texts: Tensor, pooled: Tensor, frames: Tensor) -> list[tuple[float, Tensor]]:
        """Cosines (B, B) of the sampled texts, and of the support texts, which lie towards the mean pooled video."""
        with full_precision(texts):
            own = torch.einsum("td,tfd->tf", F.normalize(texts, dim=-1), F.normalize(frames, dim=-1))
            scale = self._radius(own)  # (B, d)
            videos = F.normalize(pooled, dim=-1)
            centre = pooled.mean(dim=0)  # (B, d): each video, averaged over the texts of the batch that pool it
            points = [(1.0, texts + self._noise(texts, None) * scale)]
            if self.config.support_weight:
                points.append((self.config.support_weight, texts + F.normalize(centre - texts, dim=-1) * scale))
            return [(weight, (videos @ F.normalize(p, dim=-1)[..., None]).squeeze(-1)) for weight, p in points]

    def _radius(self, cosines: Tensor) -> Tensor:
        frames = self.radius.in_features
        require(cosines.shape[-1] == frames, f"T-MASS needs {frames} frames per video, not {cosines.shape[-1]}.")
        return self.radius(cosines).exp()

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.config.text_noise == "normal":
            return self.config.text_noise_std * normal_like(like, generator)
        return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion-based alignment (section 3.2): a DDPM over delta = v - t, conditioned on the text.

    Attributes:
        steps: T (10, section 4.1).
        beta_start: first beta of the linear schedule (0.1, section 4.1).
        beta_end: last beta (0.99, section 4.1).
        longest_gap: bound on the norm of a predicted delta_0, in units of the norm of the text, like the clipping in
            the code of DDPM. Not in the paper: 0 means no bound (Equation 7). With this schedule Equation 7 multiplies
            the errors of the network by 1 / sqrt(alpha_i): by 10 at the first step, by 480 over all steps.
        inference_samples: samples of delta that are averaged at inference (the paper does not say; 1).
        inference_seed: seed of these samples.
    """

    steps: int = 10
    beta_start: float = 0.1
    beta_end: float = 0.99
    longest_gap: float = 0.0
    inference_samples: int = 1
    inference_seed: int = 0

    def __post_init__(self) -> None:
        linear_schedule(self.steps, self.beta_start, self.beta_end)  # validates the three values
        require(self.steps >= 1, "A diffusion model needs at least one step.")
        require(self.longest_gap >= 0, f"The longest gap cannot be negative: {self.longest_gap}.")
        require(self.inference_samples >= 1, "The gap is averaged over at least one sample.")


class DiffusionAlignment(Alignment):
    """t + delta_0, with delta_0 from the reverse process of a DDPM that starts at Gaussian noise (Equations 5 to 7)."""

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
    def is_stochastic(self) -> bool:
        """True: the trajectory of each text starts at its own noise."""
        return True

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """t + delta_0 (B, d) of text embeddings (B, d); at inference the mean over `inference_samples`."""
        generator = generator or noise_generator(self, self.config.inference_seed, text)
        samples = 1 if self.training else self.config.inference_samples
        return torch.stack([list(self._points(text, generator))[-1] for _ in range(samples)]).mean(dim=0)

    def trajectory(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points t + delta_i (T + 1, B, d), from t + Gaussian noise to the aligned embedding of one sample."""
        generator = generator or noise_generator(self, self.config.inference_seed, text)
        return torch.stack(list(self._points(text, generator)))

    def regression_loss(self, texts: Tensor, targets: Tensor, power: int) -> Tensor:
        """Mean |eps - network|^power at a random timestep per row (Equation 6 has power 2; Table 7 also has 1)."""
        steps = torch.randint(self.config.steps, (len(texts),), device=texts.device)
        noise = normal_like(texts, None)
        signal = self.alpha_bar[steps, None]
        delta = signal.sqrt() * (targets - texts) + (1 - signal).sqrt() * noise
        return (noise - self.network(delta, steps + 1, texts)).abs().pow(power).mean()

    def _points(self, text: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Equation 7: delta_{i-1} = (delta_i - (1 - alpha_i) / sqrt(1 - abar_i) eps) / sqrt(alpha_i) + sigma_i z."""
        delta = normal_like(text, generator)
        yield text + delta
        for i in range(self.config.steps, 0, -1):
            k = i - 1
            eps = self.network(delta, torch.full((len(text),), i, device=text.device), text)
            delta = self._posterior_mean(delta, eps, k, text)
            if i > 1:
                delta = delta + self.beta[k].sqrt() * normal_like(text, generator)
            yield text + delta

    def _posterior_mean(self, delta: Tensor, eps: Tensor, k: int, text: Tensor) -> Tensor:
        """The mean (B, d) of delta_{i-1} given delta_i and eps, k = i - 1: by Equation 7, or from a bounded delta_0."""
        alpha, signal = self.alpha[k], self.alpha_bar[k]
        if not self.config.longest_gap:
            return (delta - (1 - alpha) / (1 - signal).sqrt() * eps) / alpha.sqrt()
        end = (delta - (1 - signal).sqrt() * eps) / signal.sqrt()
        longest = self.config.longest_gap * text.norm(dim=-1, keepdim=True)
        end = end * (longest / end.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        previous = self.alpha_bar[k - 1] if k else torch.ones_like(signal)
        end_weight, delta_weight = previous.sqrt() * self.beta[k], alpha.sqrt() * (1 - previous)
        return (end_weight * end + delta_weight * delta) / (1 - signal)

"""The DITS sampler: from a text embedding to the aligned embedding v_0.

Equation 8 of the paper, for i = T', ..., 1 and v_{T'} = t:

    v_{i-1} = v_i - chi_i * eps(v_i, i) + lambda_i * z,    z ~ N(0, I) for i > 1, z = 0 at i = 1

By default the network sees only the current point and the timestep, so an aligned embedding does not depend on the
gallery. The ablations of the paper, and controls that are not in the paper, are options.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.common.errors import require
from dits.models.alignment import Alignment, noise_generator, normal_like, require_choice
from dits.models.network import AlignmentConfig, AlignmentNetwork
from dits.models.schedule import linear_schedule


@dataclass(frozen=True)
class SamplerConfig:
    """The sampler of Equation 8.

    Attributes:
        steps: T' (10; 5 on DiDeMo, section 4.1). With 0 the aligned embedding is the text embedding.
        beta_start: first beta of the linear schedule (0.1, section 4.1).
        beta_end: last beta (0.99, section 4.1).
        step_size: "paper" uses chi of the schedule, "uniform" 1 / T' at every step (a control, not in the paper).
        start: "text" is the paper's truncated start; "gaussian" draws v_{T'} from N(0, I) and needs the text as a
            condition, because v_0 would not depend on the text otherwise.
        condition: further input of the network: "none" (chosen by the paper), "text", "video" or "both" (Table 6a).
        direction: "text-to-video" starts at the text (delta = v - t, chosen by the paper); "video-to-text" starts at
            the pooled video and approaches the text (delta = t - v, Table 6b).
        noise_scale: factor of lambda in training; 1 is the paper's Equation 8, 0 trains without noise.
        inference_noise_scale: factor of lambda at inference (the paper does not say); 0 makes v_0 deterministic.
        inference_samples: samples of a stochastic v_0 that are averaged at inference (the paper does not say; 1).
        inference_seed: seed of the noise at inference.
        normalise_input: scale the text to `input_norm` first (the paper does not say; X-Pool's code does not).
        input_norm: norm of the scaled text embedding. CLIP's projected embeddings have norms of about 10.
    """

    steps: int = 10
    beta_start: float = 0.1
    beta_end: float = 0.99
    step_size: str = "paper"
    start: str = "text"
    condition: str = "none"
    direction: str = "text-to-video"
    noise_scale: float = 1.0
    inference_noise_scale: float = 0.0
    inference_samples: int = 1
    inference_seed: int = 0
    normalise_input: bool = False
    input_norm: float = 10.0

    def __post_init__(self) -> None:
        linear_schedule(self.steps, self.beta_start, self.beta_end)  # validates the three values
        require(self.noise_scale >= 0 and self.inference_noise_scale >= 0, "A noise scale cannot be negative.")
        require(self.input_norm > 0, f"The norm of the input must be above 0, not {self.input_norm}.")
        require(self.inference_samples >= 1, "v_0 is averaged over at least one sample.")
        require_choice("step size", self.step_size, ("paper", "uniform"))
        require_choice("start", self.start, ("text", "gaussian"))
        require_choice("condition", self.condition, ("none", "text", "video", "both"))
        require_choice("direction", self.direction, ("text-to-video", "video-to-text"))
        depends_on_text = self.condition in ("text", "both") or self.direction == "video-to-text"
        require(
            self.start == "text" or depends_on_text,
            "A Gaussian start needs the text as a condition: without it no embedding depends on its text.",
        )
        require(
            self.start == "text" or self.direction == "text-to-video",
            "A Gaussian start replaces the text as the start: choose the direction text-to-video.",
        )

    @property
    def is_stochastic(self) -> bool:
        """Whether the sampler draws noise at inference."""
        return self.start == "gaussian" or (self.inference_noise_scale > 0 and self.steps > 1)


class DitsSampler(Alignment):
    """Moves text embeddings in T' learned steps towards their videos."""

    chi: Tensor
    lam: Tensor

    def __init__(self, config: SamplerConfig, network: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        conditions = {"none": 0, "text": 1, "video": 1, "both": 2}[config.condition]
        self.network = AlignmentNetwork(network, conditions * network.dim)
        schedule = linear_schedule(config.steps, config.beta_start, config.beta_end)
        chi = torch.full_like(schedule.chi, 1 / max(1, config.steps)) if config.step_size == "uniform" else schedule.chi
        self.register_buffer("chi", chi.float(), persistent=False)
        self.register_buffer("lam", schedule.lam.float(), persistent=False)

    @property
    def pairwise(self) -> bool:
        """Whether the trajectory depends on the video, so that every pair of text and video has its own."""
        return self.config.condition in ("video", "both") or self.config.direction == "video-to-text"

    @property
    def is_stochastic(self) -> bool:
        """Whether each text gets its own noise at inference."""
        return self.config.is_stochastic

    def sample(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Aligned embeddings v_0 (B, d) of text embeddings (B, d). See `noise_generator` for the default generator."""
        return self._averaged_v0(self._start(text), text, None, generator)

    def trajectory(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The points (T' + 1, B, d) from v_{T'} to v_0 of texts (B, d). The last is `sample` with one sample."""
        generator = self._generator(text, generator)
        return torch.stack(list(self._points(self._start(text), text, None, generator)))

    def pair_cosines(
        self, texts: Tensor, pooled: Tensor, frames: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cosines (T, V) of texts (T, d) and videos (T or 1, V, d) pooled by each text; one of the two is aligned."""
        if not self.pairwise:
            return super().pair_cosines(texts, pooled, frames, generator)
        pooled = pooled.expand(len(texts), -1, -1)
        text = texts[:, None].expand_as(pooled)
        if self.config.direction == "video-to-text":
            moved = self._averaged_v0(self._start(pooled), text, pooled, generator)
            return F.cosine_similarity(text, moved, dim=-1)
        return F.cosine_similarity(self._averaged_v0(self._start(text), text, pooled, generator), pooled, dim=-1)

    def _start(self, point: Tensor) -> Tensor:
        return F.normalize(point, dim=-1) * self.config.input_norm if self.config.normalise_input else point

    def _generator(self, like: Tensor, generator: torch.Generator | None) -> torch.Generator | None:
        return generator or noise_generator(self, self.config.inference_seed, like)

    def _averaged_v0(
        self, start: Tensor, text: Tensor, video: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """v_0; at inference the mean over `inference_samples`, if the sampler is stochastic."""
        generator = self._generator(start, generator)
        samples = self.config.inference_samples if self.config.is_stochastic and not self.training else 1
        ends = [list(self._points(start, text, video, generator))[-1] for _ in range(samples)]
        return ends[0] if samples == 1 else torch.stack(ends).mean(dim=0)

    def _points(
        self, start: Tensor, text: Tensor, video: Tensor | None, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        config = self.config
        scale = config.noise_scale if self.training else config.inference_noise_scale
        noise_shape = start[..., :1, :] if video is not None else start  # a text has the same noise with every video
        point = normal_like(noise_shape, generator).expand_as(start) if config.start == "gaussian" else start
        yield point
        if not config.steps:
            return
        condition = self._condition(text, video)
        timesteps = torch.arange(1, config.steps + 1, device=start.device)
        shared = self.network.modulation(timesteps) if condition is None else None
        for i in range(config.steps, 0, -1):
            k = i - 1
            modulation = shared[k] if shared is not None else self.network.modulation(timesteps[k : k + 1], condition)
            point = point - self.chi[k] * self.network.predict(point, modulation)
            if scale and i > 1:
                point = point + scale * self.lam[k] * normal_like(noise_shape, generator)
            yield point

    def _condition(self, text: Tensor, video: Tensor | None) -> Tensor | None:
        inputs = {"none": (), "text": (text,), "video": (video,), "both": (text, video)}[self.config.condition]
        parts = [part for part in inputs if part is not None]
        return torch.cat(parts, dim=-1) if parts else None

"""Features and validation of the model in training: text tower, and image tower as far as it is tuned."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dits.bundled_encoder.config import EncoderTrainingConfig
from dits.bundled_encoder.data import ValidationClips
from dits.bundled_encoder.pictures import cached_tensor, normalise, plain_view
from dits.common.files import cache_root, sha256_of_json
from dits.encoders.towers import upper_stages
from dits.evaluation.metrics import evaluate_scores, mean_and_spread
from dits.models.pooling import mean_pool

_TEXT_BATCH = 64
_PICTURE_BATCH = 32


class ModelFeatures:
    """Features of a model before its projections, and its retrieval metrics."""

    def __init__(self, model: nn.Module, folder: Path, config: EncoderTrainingConfig, device: torch.device) -> None:
        """`folder` has the model's tokenizer."""
        import open_clip

        self.model: Any = model
        self.config, self.device = config, device
        self._tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The precision of the forward passes of training; validation has full precision.

        On a CPU, the gradient of fused attention in bfloat16 takes longer than all matrix products of the text tower:
        there, attention is computed by plain products.
        """
        if self.config.precision == "fp32":
            yield
            return
        attention = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, torch.bfloat16), attention:
            yield

    def text_tower(self, texts: Sequence[str]) -> Tensor:
        """Features (B, 384) of texts, with gradients."""
        tokens = self._tokenize(list(texts)).to(self.device)
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        mask = (tokens != 0).long()
        return self.model.text.pooler(self.model.text.transformer(input_ids=tokens, attention_mask=mask), mask)

    def image_tower(self, views: Tensor) -> Tensor:
        """Features (B, 1280) of views (B, 3, S, S), with gradients."""
        images = normalise(views.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.model.visual.trunk(images).float()

    def upper_tower(self, maps: Tensor) -> Tensor:
        """Features (B, 1280) of kept maps (B, C, H, W), with gradients of the tuned stages."""
        return upper_stages(self.model.visual.trunk, maps.to(self.device), self.config.kept_stages).float()

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Features (N, 384) of texts, in batches of about the same length."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        blocks = [order[start : start + _TEXT_BATCH] for start in range(0, len(order), _TEXT_BATCH)]
        rows = torch.cat([self.text_tower([texts[number] for number in block]).float().cpu() for block in blocks])
        return rows[torch.tensor(order).argsort()]

    def pretrained_texts(self, texts: Sequence[str]) -> Tensor:
        """`texts` of the text tower as it is pretrained, cached."""
        path = cache_root() / "encoder-training" / f"texts-{sha256_of_json(list(texts))[:12]}.safetensors"
        return cached_tensor(path, "features", lambda: self.texts(texts))

    @torch.no_grad()
    def frames(self, clips: ValidationClips) -> Tensor:
        """Features (V, FRAMES, 1280): of the frozen tower, of the tuned stages on kept maps, or of the tuned tower."""
        count = len(clips.pictures)
        blocks = np.array_split(np.arange(count), max(1, count // _PICTURE_BATCH))
        if not self.config.image_stages:
            features = clips.frames.features.float()
        elif self.config.kept_stages:
            features = torch.cat([self.upper_tower(clips.frames.select_maps(block)) for block in blocks])
        else:
            views = (torch.stack([plain_view(clips.pictures[number]) for number in block]) for block in blocks)
            features = torch.cat([self.image_tower(block) for block in views])
        return features.to(self.device)[clips.frame_of]

    def validate(self, validation: Sequence[ValidationClips]) -> dict[str, Any]:
        """Metrics of mean pooling: those of each corpus, and their means over the corpora."""
        records = {clips.name: self._metrics(clips) for clips in validation}
        means, _ = mean_and_spread([{"all": record} for record in records.values()])
        return means["all"] | {"corpora": records}

    @torch.no_grad()
    def _metrics(self, clips: ValidationClips) -> dict[str, Any]:
        texts = self.model.text.proj(self.texts(clips.captions).to(self.device))
        videos = mean_pool(self.model.visual.head.proj(self.frames(clips)))
        return evaluate_scores((F.normalize(texts, dim=-1) @ videos.T).cpu(), clips.clip_of)

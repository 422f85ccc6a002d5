"""Pooling of frame embeddings to video embeddings: mean pooling, and the text-conditioned pooling of X-Pool.

The X-Pool module pools in training, in pairwise galleries and for `RetrievalModel.own_videos`, and is the reference for
tests. For all other scores, `dits.scoring.exact` needs no pooled embedding per pair of text and video.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import require

_VIDEOS_PER_BLOCK = 1024


@dataclass(frozen=True)
class PoolingConfig:
    """X-Pool's pooling. Defaults are those of its code (layer6ai-labs/xpool).

    Attributes:
        kind: "xpool", or "mean" to use the alignment of a method with mean-pooled videos (not in the paper).
        attend_with: "text" pools with the original text, "aligned" with v_0 (the paper does not say; the code of
            T-MASS, by the same authors, pools with the text).
        dim: width of the embeddings.
        heads: attention heads (1).
        dropout: on the linear branch only (0.3; 0.4 on MSR-VTT 7k, and in T-MASS on DiDeMo).
    """

    kind: str = "xpool"
    attend_with: str = "text"
    dim: int = 512
    heads: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        require(self.kind in ("xpool", "mean"), f"The kind of pooling must be xpool or mean, not '{self.kind}'.")
        require(
            self.attend_with in ("text", "aligned"), f"Pooling attends with text or aligned, not '{self.attend_with}'."
        )
        require(0 <= self.dropout < 1, f"The dropout must be from 0 to below 1, not {self.dropout}.")
        require(
            self.heads >= 1 and self.dim % self.heads == 0,
            f"The width {self.dim} cannot be split into {self.heads} attention heads.",
        )


def mean_pool(frames: Tensor) -> Tensor:
    """Unit video embeddings (V, d) of frame embeddings (V, F, d): CLIP4Clip's meanP.

    Frames are normalised, averaged and normalised again; float16 frames in float32, one block of videos at a time.
    """
    dtype = torch.float32 if frames.dtype == torch.float16 else frames.dtype
    blocks = (F.normalize(block.to(dtype), dim=-1) for block in frames.split(_VIDEOS_PER_BLOCK))
    return torch.cat([F.normalize(block.mean(dim=-2), dim=-1) for block in blocks])


class XPool(nn.Module):
    """X-Pool (Gorti et al. 2022): each video pooled once per text, by attention of the text over the frames.

    Texts and frames share one LayerNorm; the attention output and the sum with the residual linear branch have one
    each. Linear weights start as the identity, biases at zero, as in X-Pool's code.
    """

    def __init__(self, config: PoolingConfig) -> None:
        super().__init__()
        d = config.dim
        self.config = config
        self.norm_in = nn.LayerNorm(d)
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)
        self.output = nn.Linear(d, d)
        self.norm_attended = nn.LayerNorm(d)
        self.linear = nn.Linear(d, d)
        self.norm_out = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.query, self.key, self.value, self.output, self.linear):
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Pooled embeddings (T, V, d) of every video (V, F, d) for every text (T, d), not normalised."""
        weights = self.attention(texts, frames)
        values = self._split_heads(self.value(self.norm_in(frames)))
        attended = torch.einsum("tvhf,vfhe->tvhe", weights, values).flatten(-2)
        attended = self.norm_attended(self.output(attended))
        return self.norm_out(attended + self.dropout(self.linear(attended)))

    def attention(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Attention weights (T, V, H, F) of texts (T, d) over the frames of videos (V, F, d); they sum to 1 over F."""
        queries = self._split_heads(self.query(self.norm_in(texts)))
        keys = self._split_heads(self.key(self.norm_in(frames)))
        logits = torch.einsum("the,vfhe->tvhf", queries, keys)
        return torch.softmax(logits / math.sqrt(queries.shape[-1]), dim=-1)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config.heads, -1))

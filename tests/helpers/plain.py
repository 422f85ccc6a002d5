"""Plain definitions, as references for the fast implementations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.models.pooling import XPool


def xpool_similarity(pooling: XPool, texts: Tensor, aligned: Tensor, frames: Tensor) -> Tensor:
    """Cosines (T, V) of aligned embeddings (T, d) and videos (V, F, d), video i pooled by text j for the pair (j, i).

    The plain definition: it holds T x V pooled embeddings. Pooling attends with the original text, as in
    T-MASS's code; only the text side of the cosine is replaced (the paper does not say).
    """
    pooled = F.normalize(pooling(texts, frames), dim=-1)
    return torch.einsum("td,tvd->tv", F.normalize(aligned, dim=-1), pooled)

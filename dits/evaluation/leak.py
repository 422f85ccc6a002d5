"""An evaluation that leaks on purpose: measures how much a result gains if videos are pooled by their own captions.

The released evaluation of T-MASS scored text j against video i after pooling video i with its own caption instead of
text j (reported in T-MASS-dataleakage, November 2024). The correct video is then the only one that is pooled by the
query itself. No result of this package is computed in this way.
"""

import torch
from torch import Tensor

from dits.common.errors import InputError
from dits.models.retrieval import RetrievalModel

_BLOCK = 64  # texts, and videos, per block of pairs


@torch.inference_mode()
def leaky_scores(model: RetrievalModel, texts: Tensor, frames: Tensor) -> Tensor:
    """LEAKY cosines (V, V): text j against video i pooled by caption i, not by text j. Texts (V, d), frames (V, F, d).

    Text i must be the only caption of video i. Without text-conditioned pooling nothing leaks, and the scores are
    correct.

    Raises:
        InputError: the numbers of texts and videos differ.
    """
    if len(texts) != len(frames):
        raise InputError(
            f"The leaky scores need one caption per video: there are {len(texts)} texts and {len(frames)} videos."
        )
    device = model.logit_scale.device
    texts, frames = texts.to(device), frames.to(device)
    own = model.own_videos(texts, frames)[None]  # (1, V, d): the same for every text
    blocks = list(zip(own.split(_BLOCK, dim=1), frames.split(_BLOCK), strict=True))
    scores = [
        torch.cat([model.alignment.pair_cosines(rows, videos, block) for videos, block in blocks], dim=1)
        for rows in texts.split(_BLOCK)
    ]
    return torch.cat(scores).cpu()

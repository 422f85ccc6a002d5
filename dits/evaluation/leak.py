"""A leaky evaluation on purpose, as a diagnostic: how much a result gains when videos see their own captions.

The released evaluation of T-MASS scored text j against video i after pooling video i with video i's own caption, in
place of text j (reported in T-MASS-dataleakage, November 2024). The right video is then the only one that was pooled
by the query itself. No result of this package is computed this way; this module measures what it would gain.
"""

import torch
from torch import Tensor

from dits.common.errors import InputError
from dits.models.retrieval import RetrievalModel

_AT_ONCE = 64  # texts, and videos, whose pairs are held at once


@torch.inference_mode()
def leaky_scores(model: RetrievalModel, texts: Tensor, frames: Tensor) -> Tensor:
    """LEAKY cosines (V, V): text j against video i pooled by caption i, not by text j. Texts (V, d), frames (V, F, d).

    It works with one caption per video only, caption i being video i's. Without text-conditioned pooling nothing can
    leak: the scores are then the proper ones.

    Raises:
        InputError: there are not as many texts as videos.
    """
    if len(texts) != len(frames):
        raise InputError(
            f"The leaky scores need one caption per video: there are {len(texts)} texts and {len(frames)} videos."
        )
    device = model.logit_scale.device
    texts, frames = texts.to(device), frames.to(device)
    own = model.own_videos(texts, frames)[None]  # (1, V, d): the same for every text
    parts = [
        torch.cat(
            [
                model.alignment.pair_cosines(rows, own[:, v : v + _AT_ONCE], frames[v : v + _AT_ONCE])
                for v in range(0, len(frames), _AT_ONCE)
            ],
            dim=1,
        )
        for rows in texts.split(_AT_ONCE)
    ]
    return torch.cat(parts).cpu()

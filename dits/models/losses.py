"""Contrastive losses."""

import torch
import torch.nn.functional as F
from torch import Tensor


def symmetric_cross_entropy(similarities: Tensor, logit_scale: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy (scalar) of a batch of similarities (B, B), in which text j and video j are a pair.

    The two directions are averaged, as in X-Pool's code; Equation 2 of the paper, as printed, sums them.

    Args:
        similarities: cosines, texts in rows and videos in columns.
        logit_scale: logarithm of the temperature factor, as in CLIP.
        ignored: (B, B) mask of pairs that are not negatives, such as other captions of the video; never the diagonal.
    """
    logits = similarities * logit_scale.exp()
    if ignored is not None:
        logits = logits.masked_fill(ignored, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def sigmoid_loss(similarities: Tensor, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """SigLIP's loss (scalar): a binary loss of each entry of the similarities (B, B) (Zhai et al. 2023, Algorithm 1).

    Args:
        similarities: cosines, texts in rows and videos in columns.
        logit_scale: logarithm of the temperature factor.
        logit_bias: added to the scaled cosines.
    """
    logits = similarities * logit_scale.exp() + logit_bias
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)

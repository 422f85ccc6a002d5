"""X-Pool's scores on a GPU, as defined in `dits.scoring.exact`; `dits.scoring.kernel` computes them on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LOW = 2.0**11  # float16 keeps 11 bits: what it leaves out, times this, is of the size of what it keeps


def score_block(
    frames: Tensor,
    inverse_deviations: Tensor,
    grams: Tensor,
    vectors: Tensor,
    constants: Tensor,
    eps_attended: float,
    eps_out: float,
) -> Tensor:
    """Scores (T, V) of frames (V, F, d); the rest as `dits.scoring.kernel.score_videos` takes it. On any device."""
    videos, count = frames.shape[:2]
    texts, heads, _, dim = vectors.shape
    products = _products(frames.reshape(-1, dim), vectors.reshape(-1, dim).T).view(videos, count, texts, heads, 2)
    logits, values = (products * inverse_deviations[..., None, None, None]).unbind(dim=-1)
    weights = logits.softmax(dim=1)
    attended = (weights * values).sum(dim=(1, 3))
    left_out, linear, bias = constants.unbind(dim=1)
    a = weights.permute(0, 3, 1, 2).flatten(1, 2)
    terms = a.shape[1]
    first, second, third = grams.tensor_split([terms * (terms + 1) // 2, (terms + 1) ** 2], dim=1)
    s2 = torch.sqrt(_quadratic(first, a) + eps_attended)
    w = _append_one(a / s2[:, None])
    s3 = torch.sqrt(_quadratic(second, w) + eps_out)
    y = _append_one(w / s3[:, None])
    length = torch.sqrt(_quadratic(third, y)).clamp_min(1e-12)
    return ((((attended + left_out) / s2 + linear) / s3 + bias) / length).T


def _products(frames: Tensor, vectors: Tensor) -> Tensor:
    """Products (N, C) in float32 of frames (N, d) and vectors (d, C) of float32, which float16 would round.

    Frames of float16 are not converted, which would read and write them twice more: the vectors are, as the sum of what
    float16 keeps of them and what it leaves out, to 22 bits.
    """
    if frames.dtype == torch.float32 or frames.device.type == "cpu":  # there is no such product on the CPU
        return frames.float() @ vectors
    scale = vectors.abs().amax(dim=0).clamp_min(1e-30)
    both = torch.cat(halves(vectors / scale), dim=1)
    high, low = torch.mm(frames, both, out_dtype=torch.float32).chunk(2, dim=1)
    return (high + low / _LOW) * scale


def halves(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers up to 1 as two of float16: high + low / 2048 is the number to 22 bits."""
    high = numbers.half()
    return high, ((numbers - high.float()) * _LOW).half()


def _quadratic(gram: Tensor, weights: Tensor) -> Tensor:
    """w' G w of packed Gram matrices (V, K (K + 1) / 2) and weights (V, K, T): (V, T); not below 0."""
    rows, columns = torch.tril_indices(weights.shape[1], weights.shape[1], device=weights.device)
    pairs = weights[:, rows] * weights[:, columns]
    return (gram[:, None] @ pairs)[:, 0].clamp_min(0)


def _append_one(weights: Tensor) -> Tensor:
    """The weights (V, K, T) with a last row of ones (V, K + 1, T): the constant term of a sum."""
    return F.pad(weights, (0, 0, 0, 1), value=1.0)

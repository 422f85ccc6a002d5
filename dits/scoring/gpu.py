"""X-Pool scores on a GPU, as defined in `dits.scoring.exact`; `dits.scoring.kernel` computes them on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LOW = 2.0**11  # float16 has 11 bits of precision: scales the rounding error to the size of the number


def score_block(
    frames: Tensor,
    inverse_deviations: Tensor,
    grams: Tensor,
    vectors: Tensor,
    constants: Tensor,
    eps_attended: float,
    eps_out: float,
) -> Tensor:
    """Scores (T, V) on any device; the arguments are those of `dits.scoring.kernel.score_videos`."""
    videos, count = frames.shape[:2]
    texts, heads, _, dim = vectors.shape
    products = _products(frames.reshape(-1, dim), vectors.reshape(-1, dim).T).view(videos, count, texts, heads, 2)
    logits, values = (products * inverse_deviations[..., None, None, None]).unbind(dim=-1)
    weights = logits.softmax(dim=1)
    attended = (weights * values).sum(dim=(1, 3))
    constant, linear, bias = constants.unbind(dim=1)
    a = weights.permute(0, 3, 1, 2).flatten(1, 2)
    terms = a.shape[1]
    first, second, third = grams.tensor_split([terms * (terms + 1) // 2, (terms + 1) ** 2], dim=1)
    s2 = torch.sqrt(_quadratic(first, a) + eps_attended)
    w = _append_one(a / s2[:, None])
    s3 = torch.sqrt(_quadratic(second, w) + eps_out)
    y = _append_one(w / s3[:, None])
    length = torch.sqrt(_quadratic(third, y)).clamp_min(1e-12)
    return ((((attended + constant) / s2 + linear) / s3 + bias) / length).T


def _products(frames: Tensor, vectors: Tensor) -> Tensor:
    """Products (N, C) in float32 of frames (N, d) and float32 vectors (d, C).

    Converting float16 frames would read and write them twice more. Instead each vector is split into two float16
    vectors, which represent it to 22 bits.
    """
    if frames.dtype == torch.float32 or frames.device.type == "cpu":  # the CPU has no `out_dtype`
        return frames.float() @ vectors
    scale = vectors.abs().amax(dim=0).clamp_min(1e-30)
    parts = torch.cat(split_to_float16(vectors / scale), dim=1)
    high, low = torch.mm(frames, parts, out_dtype=torch.float32).chunk(2, dim=1)
    return (high + low / _LOW) * scale


def split_to_float16(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of at most 1 as two float16 numbers: high + low / 2048 is the number to 22 bits."""
    high = numbers.half()
    return high, ((numbers - high.float()) * _LOW).half()


def _quadratic(gram: Tensor, weights: Tensor) -> Tensor:
    """w' G w (V, T), at least 0, of packed Gram matrices (V, K (K + 1) / 2) and weights (V, K, T)."""
    rows, columns = torch.tril_indices(weights.shape[1], weights.shape[1], device=weights.device)
    pairs = weights[:, rows] * weights[:, columns]
    return (gram[:, None] @ pairs)[:, 0].clamp_min(0)


def _append_one(weights: Tensor) -> Tensor:
    """The weights (V, K, T) with a last row of ones (V, K + 1, T), for the constant term of a sum."""
    return F.pad(weights, (0, 0, 0, 1), value=1.0)

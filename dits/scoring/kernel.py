"""X-Pool scores on the CPU, as defined in `dits.scoring.exact`, compiled with numba.

Videos are scored one by one, in float32. The frames of a video are read from memory once per block of texts, and its
scores do not depend on other videos.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

MAX_SEPARATE_TEXTS = 32
"""Up to this number of texts, the scores of a text do not depend on the other texts."""

_ZERO, _TINY = np.float32(0), np.float32(1e-12)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call, and cached for later runs if a cache folder can be written."""
    options = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}  # reorders sums, to vectorise them
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache folder can be written
        return njit(**options)(function)


@intrinsic
def _to_float32(_: Any, number: Any) -> Any:
    """Converts a number to float32: a float32, or the bits of a float16 that numba gets as uint16."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(number), generate


@_compiled
def score_videos(frames, inverse_deviations, grams, vectors, constants, eps_attended, eps_out, scores):  # type: ignore
    """Fills scores (T, V).

    Args:
        frames: (V, F, d) float32, or the bits of float16 as uint16.
        inverse_deviations: (V, F), see `dits.scoring.exact.PreparedVideos`.
        grams: (V, G), see `dits.scoring.exact.PreparedVideos`.
        vectors, constants: (T, H, 2, d) and (T, 3), the texts with X-Pool's maps folded in.
        eps_attended, eps_out: float32 eps of the second and the third norm.
        scores: (T, V) float32.
    """
    videos, count, dim = frames.shape
    texts, heads = vectors.shape[:2]
    even = count + count % 2  # frames are processed in pairs; an odd number is padded with a frame of zeros
    video, inverse = np.zeros((even, dim), np.float32), np.zeros(even, np.float32)
    logits, values = np.empty(even, np.float32), np.empty(even, np.float32)
    terms = heads * count
    weights = np.empty((terms + 2, texts), np.float32)
    product, squares = np.empty(texts, np.float32), np.empty(texts, np.float32)
    for v in range(videos):
        for f in range(count):
            inverse[f] = inverse_deviations[v, f]
            for i in range(dim):
                video[f, i] = _to_float32(frames[v, f, i])
        for t in range(texts):
            product[t] = constants[t, 0]
            for h in range(heads):
                _products(video, inverse, vectors[t, h, 0], vectors[t, h, 1], logits, values)
                _softmax(logits[:count])
                for f in range(count):
                    weights[h * count + f, t] = logits[f]
                    product[t] += logits[f] * values[f]
        weights[terms:] = 1
        gram = grams[v]
        _quadratic(gram, weights[:terms], squares)
        _normalise(weights[:terms], product, squares, eps_attended, constants[:, 1])
        _quadratic(gram[terms * (terms + 1) // 2 :], weights[: terms + 1], squares)
        _normalise(weights[: terms + 1], product, squares, eps_out, constants[:, 2])
        _quadratic(gram[(terms + 1) * (terms + 1) :], weights, squares)
        for t in range(texts):
            scores[t, v] = product[t] / max(math.sqrt(squares[t]), _TINY)


@_compiled
def _products(video, inverse, for_logits, for_values, logits, values):  # type: ignore
    """Products of each frame with two vectors, divided by its deviation; two frames at a time, to reuse the vectors."""
    for f in range(0, len(video), 2):
        a = b = c = d = _ZERO
        for i in range(len(for_logits)):
            a += video[f, i] * for_logits[i]
            b += video[f, i] * for_values[i]
            c += video[f + 1, i] * for_logits[i]
            d += video[f + 1, i] * for_values[i]
        logits[f], values[f] = a * inverse[f], b * inverse[f]
        logits[f + 1], values[f + 1] = c * inverse[f + 1], d * inverse[f + 1]


@_compiled
def _softmax(logits):  # type: ignore
    """Softmax in place."""
    highest, total = logits[0], _ZERO
    for logit in logits:
        highest = max(highest, logit)
    for f in range(len(logits)):
        logits[f] = math.exp(logits[f] - highest)
        total += logits[f]
    for f in range(len(logits)):
        logits[f] /= total


@_compiled
def _quadratic(gram, weights, squares):  # type: ignore
    """Fills squares (T,) with w' G w, at least 0, of a packed Gram matrix and the weights (K, T) of each text."""
    texts = len(squares)
    if texts <= MAX_SEPARATE_TEXTS:
        column = np.empty(len(weights), np.float32)
        for t in range(texts):
            column[:] = weights[:, t]
            total, entry = _ZERO, 0
            for i in range(len(weights)):
                row = _ZERO
                for j in range(i + 1):
                    row += gram[entry + j] * column[j]
                total += row * column[i]
                entry += i + 1
            squares[t] = max(total, _ZERO)
        return
    squares[:] = 0
    rows = np.empty(texts, np.float32)
    entry = 0
    for i in range(len(weights)):
        rows[:] = 0
        for j in range(i + 1):
            for t in range(texts):
                rows[t] += gram[entry] * weights[j, t]
            entry += 1
        for t in range(texts):
            squares[t] += rows[t] * weights[i, t]
    for t in range(texts):
        squares[t] = max(squares[t], _ZERO)


@_compiled
def _normalise(weights, product, squares, eps, constant):  # type: ignore
    """Divides weights (K, T) and product (T,) by the deviation of a LayerNorm, and adds its constant to the product."""
    for t in range(len(product)):
        squares[t] = 1 / math.sqrt(squares[t] + eps)
        product[t] = product[t] * squares[t] + constant[t]
    for k in range(len(weights)):
        for t in range(len(product)):
            weights[k, t] *= squares[t]

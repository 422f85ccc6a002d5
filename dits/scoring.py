"""Exact X-Pool scores of all pairs of texts and videos, without a pooled embedding per pair.

X-Pool's output for a pair is a chain of affine maps and LayerNorms of a weighted sum of frame vectors. Affine maps
commute with a weighted sum whose weights sum to 1, and a LayerNorm only subtracts a mean (linear) and divides by a
deviation (a quadratic form of the weights in a Gram matrix). So each video is prepared once, and a pair costs a few
products of F numbers instead of products of d x d.

With attention weights a, and u_f = W_o value_f + b_o (each head's share, b_o split between the heads):

    after the second norm    s2^2 = a' G1 a + eps,      G1 = Gram of the centred u, over d
    before the third norm    z = sum_f (a_f / s2) p_f + c,   p_f = A (g2 * centred u_f),   A = I + W_lin,
                             c = A b2 + b_lin;          w = [a / s2, 1]
    after the third norm     s3^2 = w' G2 w + eps,      G2 = Gram of the centred [p, c], over d
    pooled = sum_k y_k q_k,  q = [g3 * centred [p, c], b3],  y = [w / s3, 1]
    |pooled|^2 = y' G3 y,    G3 = Gram of q

    cosine = sum_k y_k <v_0 / |v_0|, q_k> / |pooled|
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from dits.pooling import XPool

_BLOCK_NUMBERS = 2_000_000  # numbers in one block's largest temporary: about 8 MB in float32
_VIDEOS_PREPARED_AT_ONCE = 64


@dataclass(frozen=True)
class PreparedVideos:
    """Everything about V videos that scoring needs. K = heads * frames, the terms of the weighted sum.

    Attributes:
        keys: (V, F, d) attention keys, scaled.
        terms: (V, K + 2, d) the vectors q that pooled embeddings are combinations of.
        gram_attended: (V, K, K) G1.
        gram_linear: (V, K + 1, K + 1) G2.
        gram_pooled: (V, K + 2, K + 2) G3.
    """

    keys: Tensor
    terms: Tensor
    gram_attended: Tensor
    gram_linear: Tensor
    gram_pooled: Tensor

    def __len__(self) -> int:
        return len(self.keys)


_FIELDS = [field.name for field in fields(PreparedVideos)]


class ExactScorer:
    """Scores texts against prepared videos under one X-Pool module, exactly (up to rounding)."""

    def __init__(self, pooling: XPool) -> None:
        self.pooling = pooling
        self.heads = pooling.config.heads

    @torch.inference_mode()
    def prepare(self, frames: Tensor) -> PreparedVideos:
        """The videos (V, F, d), prepared once for any number of texts."""
        blocks = [self._prepare_block(block) for block in frames.split(_VIDEOS_PREPARED_AT_ONCE)]
        return PreparedVideos(*(torch.cat([getattr(b, name) for b in blocks]) for name in _FIELDS))

    def _prepare_block(self, frames: Tensor) -> PreparedVideos:
        pool, d = self.pooling, frames.shape[-1]
        normed = pool.norm_in(frames)
        keys = pool.key(normed) / math.sqrt(d // self.heads)
        u = self._attended_terms(pool.value(normed))
        centred = u - u.mean(dim=-1, keepdim=True)
        pushed = centred * pool.norm_attended.weight
        pushed = pushed + F.linear(pushed, pool.linear.weight)
        constant = pool.norm_attended.bias + pool.linear(pool.norm_attended.bias)
        linear = torch.cat([pushed, constant.expand(len(frames), 1, d)], dim=1)
        linear = linear - linear.mean(dim=-1, keepdim=True)
        bias = pool.norm_out.bias.expand(len(frames), 1, d)
        terms = torch.cat([linear * pool.norm_out.weight, bias], dim=1)
        return PreparedVideos(keys, terms, _gram(centred) / d, _gram(linear) / d, _gram(terms))

    @torch.inference_mode()
    def scores(self, texts: Tensor, aligned: Tensor, videos: PreparedVideos) -> Tensor:
        """Cosines (T, V) of aligned embeddings (T, d) with the videos as pooled by the texts (T, d)."""
        queries = self.pooling.query(self.pooling.norm_in(texts))
        aligned = F.normalize(aligned, dim=-1)
        result = texts.new_empty(len(texts), len(videos))
        terms = videos.terms.shape[1]
        videos_per_block = max(1, min(len(videos), _BLOCK_NUMBERS // (terms * min(len(texts), 512))))
        texts_per_block = max(1, _BLOCK_NUMBERS // (terms * videos_per_block))
        for v in range(0, len(videos), videos_per_block):
            block = _slice(videos, v, v + videos_per_block)
            for t in range(0, len(texts), texts_per_block):
                rows = slice(t, t + texts_per_block)
                result[rows, v : v + videos_per_block] = self._block(queries[rows], aligned[rows], block).T
        return result

    @torch.inference_mode()
    def attention(self, text: Tensor, videos: PreparedVideos) -> Tensor:
        """Attention weights (V, F) of one text (d,) over the frames of each video, averaged over the heads."""
        queries = self.pooling.query(self.pooling.norm_in(text[None]))
        return self._weights(queries, videos.keys).unflatten(1, (self.heads, -1)).mean(dim=1)[..., 0]

    def _attended_terms(self, values: Tensor) -> Tensor:
        """u (V, K, d): each head's value of each frame, through that head's part of the output projection."""
        weight = self.pooling.output.weight.unflatten(1, (self.heads, -1))  # (d, H, e)
        u = torch.einsum("vfhe,dhe->vhfd", values.unflatten(-1, (self.heads, -1)), weight).flatten(1, 2)
        return u + self.pooling.output.bias / self.heads

    def _weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention weights (V, K, T): softmax over each head's frames."""
        videos, frames, d = keys.shape
        if self.heads == 1:
            return (keys.reshape(-1, d) @ queries.T).view(videos, frames, -1).softmax(dim=1)
        q, k = (x.unflatten(-1, (self.heads, -1)) for x in (queries, keys))
        return torch.einsum("vfhe,the->vhft", k, q).softmax(dim=2).flatten(1, 2)

    def _block(self, queries: Tensor, aligned: Tensor, videos: PreparedVideos) -> Tensor:
        """Cosines (V, T) of one block."""
        count, terms, d = videos.terms.shape
        eps_attended, eps_out = self.pooling.norm_attended.eps, self.pooling.norm_out.eps
        a = self._weights(queries, videos.keys)
        w = _append_one(a / torch.sqrt(_quadratic(videos.gram_attended, a) + eps_attended)[:, None])
        y = _append_one(w / torch.sqrt(_quadratic(videos.gram_linear, w) + eps_out)[:, None])
        products = (videos.terms.reshape(-1, d) @ aligned.T).view(count, terms, -1)
        length = torch.sqrt(_quadratic(videos.gram_pooled, y))
        return (y * products).sum(dim=1) / length.clamp_min(1e-12)


def _slice(videos: PreparedVideos, start: int, end: int) -> PreparedVideos:
    return PreparedVideos(*(getattr(videos, name)[start:end] for name in _FIELDS))


def _gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.transpose(-1, -2)


def _quadratic(gram: Tensor, weights: Tensor) -> Tensor:
    """w' G w for every video and text: gram (V, K, K), weights (V, K, T) -> (V, T); not below 0."""
    return ((gram @ weights) * weights).sum(dim=1).clamp_min(0)


def _append_one(weights: Tensor) -> Tensor:
    """The weights (V, K, T) with a last row of ones (V, K + 1, T): the constant term of a sum."""
    return F.pad(weights, (0, 0, 0, 1), value=1.0)

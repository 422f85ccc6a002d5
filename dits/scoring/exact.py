"""Exact X-Pool scores of all pairs of texts and videos, from raw frames that are read once per pass.

X-Pool's output for a pair is a chain of affine maps and LayerNorms of a weighted sum of frame vectors. Affine maps
commute with a weighted sum whose weights sum to 1. A LayerNorm subtracts a mean, which is linear, and divides by a
deviation, which is a quadratic form of the weights in a Gram matrix. A term that is linear in a frame is a product of
the frame with a vector that depends on the text only, so all maps are folded into the text. Per video only its raw
frames and a few numbers are stored.

With attention weights a, and u_f = W_o value_f + b_o (the part of each head, b_o divided among the heads):

    after the second norm    s2^2 = a' G1 a + eps,      G1 = Gram of the centred u, over d
    before the third norm    z = sum_f (a_f / s2) p_f + c,   p_f = A (g2 * C u_f),   A = I + W_lin,  C centres,
                             c = A b2 + b_lin;          w = [a / s2, 1]
    after the third norm     s3^2 = w' G2 w + eps,      G2 = Gram of the centred [p, c], over d
    pooled = sum_k y_k q_k,  q = [g3 * C [p, c], b3],  y = [w / s3, 1]
    |pooled|^2 = y' G3 y,    G3 = Gram of q

    cosine = sum_k y_k <v, q_k> / |pooled|,  v = v_0 / |v_0|

The first norm maps a frame x_f to n_f = g1 * (x_f - mean) / sd_f + b1. So for each head (W_k, W_v its rows, W_o its
columns, e its width), without the terms that are equal for all frames (the softmax ignores them in the logits; in
<v, q_f> they add up to the constant below, because the weights sum to 1):

    logit of a frame         (C w) . x_f / sd_f,        w = g1 * W_k' query / sqrt(e)
    <v, q_f>                 (C r) . x_f / sd_f,        r = g1 * W_v' W_o' m,   m = C (g2 * A' C (g3 * v))
    its constant             b1 . W_v' W_o' m + b_v . W_o' m,  summed over the heads, + b_o . m
    <v, q> of c and b3       c . C (g3 * v),  b3 . v
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.common.errors import require
from dits.models.pooling import XPool
from dits.scoring.gpu import score_block
from dits.scoring.ranking import TopVideos, top_k

BLOCK = 8192
"""Videos per block: of scoring on a GPU; of attention, mean pooling and `top` on any device. See also `ExactScorer`."""

_VIDEOS_DERIVED_PER_STEP = 64  # divides BLOCK
_VIDEOS_PER_TASK = 512
_VECTORS_PER_STEP = 128  # of the texts: a quarter of a megabyte at d = 512, which fits into the cache of a core
_SCORES_PER_STEP = 2**22  # scores in memory during a top-k search: 16 MB


@dataclass(frozen=True)
class PreparedVideos:
    """V videos prepared for scoring. K = heads * frames is the number of terms of the weighted sum, head by head.

    Attributes:
        frames: (V, F, d) float16 or float32, not normalised, in any memory, such as a memory map of a file.
        inverse_deviations: (V, F) float32, 1 / sd of each frame's numbers.
        grams: (V, G) float32: the lower triangles of G1, G2 and G3, which are K, K + 1 and K + 2 wide, row after row.
            Entries off the diagonal are doubled, so that a quadratic form is a sum over the triangle.

    Raises:
        InputError: the arrays do not belong together.
    """

    frames: Tensor
    inverse_deviations: Tensor
    grams: Tensor

    def __post_init__(self) -> None:
        require(
            self.frames.dtype in (torch.float16, torch.float32),
            f"Frame embeddings must be float16 or float32, not {self.frames.dtype}.",
        )
        require(
            self.inverse_deviations.shape == self.frames.shape[:2] and len(self.grams) == len(self.frames),
            f"The prepared arrays do not belong to these {len(self.frames)} videos: prepare the videos again.",
        )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        """The device of the arrays."""
        return self.frames.device

    def __getitem__(self, rows: slice | Tensor) -> "PreparedVideos":
        return PreparedVideos(*(take_rows(array, rows) for array in (self.frames, self.inverse_deviations, self.grams)))

    def select(self, rows: Tensor) -> "SelectedVideos":
        """A view of the videos at the given rows, without a copy."""
        return SelectedVideos(self, rows)


class SelectedVideos:
    """Rows of prepared videos that are read block by block during scoring, because a block fits into a CPU cache."""

    def __init__(self, videos: PreparedVideos, rows: Tensor) -> None:
        self._videos, self._rows = videos, rows
        self.device = videos.device

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor) -> PreparedVideos:
        return self._videos[self._rows[rows]]

    def select(self, rows: Tensor) -> "SelectedVideos":
        """See `PreparedVideos.select`."""
        return SelectedVideos(self._videos, self._rows[rows])


Videos = PreparedVideos | SelectedVideos


@dataclass(frozen=True)
class _Queries:
    """T texts with X-Pool's maps folded in.

    Attributes:
        vectors: (T, H, 2, d) C w and C r of each head.
        constants: (T, 3) the constant of <v, q_f>, and <v, q> of c and of b3.
    """

    vectors: Tensor
    constants: Tensor

    def split_with(self, scores: Tensor) -> list[tuple["_Queries", Tensor]]:
        """Blocks of the texts, one per step of scoring, each with its rows of the scores (T, V)."""
        size = max(1, _VECTORS_PER_STEP // (2 * self.vectors.shape[1]))
        blocks = zip(self.vectors.split(size), self.constants.split(size), scores.split(size), strict=True)
        return [(_Queries(vectors, constants), rows) for vectors, constants, rows in blocks]


class ExactScorer:
    """Scores texts against prepared videos under one X-Pool module, exactly (up to rounding).

    Products and scores are summed in float32 for frames of either type. On the CPU, the score of a text and a video is
    the same to the last bit for any other videos and any order of them. On a GPU, and for the results of `derive`,
    this holds if arrays are cut at multiples of `BLOCK`. On the CPU, a score does not depend on the other texts
    either, for at most `dits.scoring.kernel.MAX_SEPARATE_TEXTS` texts (see also `pad_to_multiple_of_four`).
    """

    def __init__(self, pooling: XPool) -> None:
        self.pooling = pooling
        self.heads = pooling.config.heads

    def prepare(self, frames: Tensor) -> PreparedVideos:
        """The videos (V, F, d), without a copy, prepared for any number of texts."""
        return PreparedVideos(frames, *self.derive(frames))

    @torch.inference_mode()
    def derive(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `PreparedVideos.inverse_deviations` and `.grams` of videos (V, F, d) under these weights.

        The result can be cached: `PreparedVideos` needs no other computation. Long arrays can be given in parts.
        """
        maps = self._maps()
        blocks = frames.split(_VIDEOS_DERIVED_PER_STEP)
        parts = [self._derive_block(pad_rows(block, _VIDEOS_DERIVED_PER_STEP).float(), maps) for block in blocks]
        deviations, grams = zip(*parts, strict=True)
        return torch.cat(deviations)[: len(frames)], torch.cat(grams)[: len(frames)]

    def _derive_block(self, frames: Tensor, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        pool, d = self.pooling, frames.shape[-1]
        normed, _, inverse = torch.native_layer_norm(frames, (d,), None, None, pool.norm_in.eps)
        terms = F.linear(normed, *maps).unflatten(-1, (2, self.heads, d)).permute(2, 0, 3, 1, 4).flatten(2, 3)
        attended, projected = terms.unbind()  # centred u and p (V, K, d), head by head
        linear = torch.cat([projected, _centred(self._constant()).expand(len(frames), 1, d)], dim=1)
        bias = pool.norm_out.bias.expand(len(frames), 1, d)
        summed = torch.cat([linear * pool.norm_out.weight, bias], dim=1)
        grams = torch.cat([_packed_gram(attended) / d, _packed_gram(linear) / d, _packed_gram(summed)], dim=1)
        return inverse.squeeze(-1), grams

    def _maps(self) -> tuple[Tensor, Tensor]:
        """The matrix (2 H d, d) and offset (2 H d,) from a normalised frame to the centred u, then p, of each head."""
        pool = self.pooling
        output = pool.output.weight.double().unflatten(1, (self.heads, -1)).transpose(0, 1)  # (H, d, e)
        value = pool.value.weight.double().unflatten(0, (self.heads, -1))  # (H, e, d)
        bias = pool.value.bias.double().unflatten(0, (self.heads, -1))[..., None]  # (H, e, 1)
        weight, norm_bias = output @ value, pool.norm_in.bias.double()[:, None]
        offset = weight @ norm_bias + output @ bias + pool.output.bias.double()[:, None] / self.heads
        affine = torch.cat([weight * pool.norm_in.weight, offset], dim=2)  # (H, d, d + 1)
        attended = affine - affine.mean(dim=1, keepdim=True)
        scaled = attended * pool.norm_attended.weight[:, None]
        projected = scaled + pool.linear.weight.double() @ scaled
        projected = projected - projected.mean(dim=1, keepdim=True)
        maps = torch.cat([attended.flatten(0, 1), projected.flatten(0, 1)]).float()
        return maps[:, :-1].contiguous(), maps[:, -1].contiguous()

    def _constant(self) -> Tensor:
        """c (d,) of the module's docstring."""
        return self.pooling.norm_attended.bias + self.pooling.linear(self.pooling.norm_attended.bias)

    @torch.inference_mode()
    def scores(self, texts: Tensor, aligned: Tensor, videos: Videos) -> Tensor:
        """Cosines (T, V) of aligned embeddings (T, d) and the videos pooled by the texts (T, d)."""
        result = texts.new_empty(len(texts), len(videos))
        self._score_into(result, self._queries(texts, aligned), videos)
        return result

    @torch.inference_mode()
    def top(self, texts: Tensor, aligned: Tensor, videos: Videos, k: int) -> TopVideos:
        """The k best videos of each text by `scores`, computed block by block to limit the memory."""
        return top_k(self._score_blocks(self._queries(texts, aligned), videos), k)

    def _score_blocks(self, queries: _Queries, videos: Videos) -> Iterator[Tensor]:
        texts = len(queries.vectors)
        step = max(1, _SCORES_PER_STEP // (texts * BLOCK)) * BLOCK
        for start in range(0, len(videos), step):
            block = videos[start : start + step]
            scores = queries.vectors.new_empty(texts, len(block))
            self._score_into(scores, queries, block)
            yield scores

    @torch.inference_mode()
    def attention(self, text: Tensor, videos: Videos, rows: Tensor | None = None) -> Tensor:
        """Attention weights (V, F), averaged over heads, of one text (d,) in the videos at `rows` (default: all)."""
        vectors = self._logit_vectors(pad_to_multiple_of_four(text[None]))[0]
        rows = torch.arange(len(videos)) if rows is None else rows
        blocks = [videos[block] for block in rows.to(videos.device).split(BLOCK)]
        logits = [(b.frames.float() @ vectors.T) * b.inverse_deviations[..., None] for b in blocks]
        return torch.cat(logits).softmax(dim=1).mean(dim=2)

    def _queries(self, texts: Tensor, aligned: Tensor) -> _Queries:
        """Folds the module's maps into texts (T, d) and aligned embeddings (T, d)."""
        count, texts, aligned = len(texts), pad_to_multiple_of_four(texts), pad_to_multiple_of_four(aligned)
        pool, heads = self.pooling, self.heads
        unit = F.normalize(aligned, dim=-1)
        before_norm = _centred(unit * pool.norm_out.weight)
        attended = _centred((before_norm + before_norm @ pool.linear.weight) * pool.norm_attended.weight)  # m
        output = attended @ pool.output.weight
        value = pool.value.weight.unflatten(0, (heads, -1))  # (H, e, d)
        values = torch.einsum("the,hed->thd", output.unflatten(-1, (heads, -1)), value)
        constant = values.sum(dim=1) @ pool.norm_in.bias + output @ pool.value.bias + attended @ pool.output.bias
        constants = torch.stack([constant, before_norm @ self._constant(), unit @ pool.norm_out.bias], dim=1)
        vectors = torch.stack([self._logit_vectors(texts), self._fold_first_norm(values)], dim=2)
        return _Queries(vectors[:count], constants[:count])

    def _logit_vectors(self, texts: Tensor) -> Tensor:
        """C w (T, H, d) of texts (T, d)."""
        pool, heads = self.pooling, self.heads
        query = pool.query(pool.norm_in(texts)).unflatten(-1, (heads, -1))
        key = pool.key.weight.unflatten(0, (heads, -1))  # (H, e, d)
        return self._fold_first_norm(torch.einsum("the,hed->thd", query / math.sqrt(query.shape[-1]), key))

    def _fold_first_norm(self, vectors: Tensor) -> Tensor:
        """Turns factors of normalised frames (T, H, d) into factors of raw frames divided by their deviations."""
        # float64, because 1 / sd can be large and would amplify a remainder of the mean
        return _centred((vectors * self.pooling.norm_in.weight).double()).float()

    def _score_into(self, scores: Tensor, queries: _Queries, videos: Videos) -> None:
        score = self._score_into_on_cpu if scores.device.type == "cpu" else self._score_into_on_gpu
        score(scores, queries, videos, (self.pooling.norm_attended.eps, self.pooling.norm_out.eps))

    def _score_into_on_cpu(self, scores: Tensor, queries: _Queries, videos: Videos, eps: tuple[float, float]) -> None:
        from dits.scoring.kernel import score_videos  # imports numba, which takes half a second

        def score(task: tuple[slice, _Queries, Tensor]) -> None:
            columns, texts, rows = task
            block = videos[columns]
            frames = block.frames.view(torch.uint16) if block.frames.dtype == torch.float16 else block.frames
            tensors = (frames, block.inverse_deviations, block.grams, texts.vectors, texts.constants)
            arrays = (tensor.contiguous().numpy() for tensor in tensors)
            score_videos(*arrays, *map(np.float32, eps), rows[:, columns].numpy())

        tasks = [
            (slice(start, start + _VIDEOS_PER_TASK), texts, rows)
            for start in range(0, len(videos), _VIDEOS_PER_TASK)
            for texts, rows in queries.split_with(scores)
        ]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(score, tasks))

    def _score_into_on_gpu(self, scores: Tensor, queries: _Queries, videos: Videos, eps: tuple[float, float]) -> None:
        for start in range(0, len(videos), BLOCK):
            columns = slice(start, start + BLOCK)
            block = videos[columns]
            frames, inverse, grams = (pad_rows(a, BLOCK) for a in (block.frames, block.inverse_deviations, block.grams))
            for texts, rows in queries.split_with(scores):
                padded_scores = score_block(frames, inverse, grams, texts.vectors, texts.constants, *eps)
                rows[:, columns] = padded_scores[:, : len(videos) - start]


def take_rows(array: Tensor, rows: slice | Tensor) -> Tensor:
    """Rows of an array; a slice is a view. On the CPU through NumPy, which copies rows several times faster."""
    if isinstance(rows, slice) or array.device.type != "cpu":
        return array[rows]
    return torch.from_numpy(np.take(array.numpy(), rows.numpy(), axis=0))


def pad_rows(array: Tensor, length: int) -> Tensor:
    """The array padded with rows of zeros to a length, because the order of a sum depends on the shape of a product."""
    return torch.cat([array, array.new_zeros(length - len(array), *array.shape[1:])]) if len(array) < length else array


def pad_to_multiple_of_four(array: Tensor) -> Tensor:
    """The array padded with rows of zeros: CPUs sum all rows of a product alike if their number is a multiple of 4."""
    return pad_rows(array, -(-len(array) // 4) * 4)


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(dim=-1, keepdim=True)


def _packed_gram(vectors: Tensor) -> Tensor:
    """The Gram matrices of vectors (V, K, d), packed as in `PreparedVideos.grams`: (V, K (K + 1) / 2)."""
    gram = vectors @ vectors.transpose(-1, -2)
    rows, columns = torch.tril_indices(*gram.shape[1:], device=gram.device)
    return gram[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0)

"""Exact X-Pool scores of all pairs of texts and videos, from raw frames, which one pass reads once.

X-Pool's output for a pair is a chain of affine maps and LayerNorms of a weighted sum of frame vectors. Affine maps
commute with a weighted sum whose weights sum to 1, and a LayerNorm only subtracts a mean (linear) and divides by a
deviation (a quadratic form of the weights in a Gram matrix). What is linear in a frame is a product of the frame with a
vector of the text's, so all maps are folded into the text: a video keeps its frames as they came, and few numbers.

With attention weights a, and u_f = W_o value_f + b_o (each head's share, b_o split between the heads):

    after the second norm    s2^2 = a' G1 a + eps,      G1 = Gram of the centred u, over d
    before the third norm    z = sum_f (a_f / s2) p_f + c,   p_f = A (g2 * C u_f),   A = I + W_lin,  C centres,
                             c = A b2 + b_lin;          w = [a / s2, 1]
    after the third norm     s3^2 = w' G2 w + eps,      G2 = Gram of the centred [p, c], over d
    pooled = sum_k y_k q_k,  q = [g3 * C [p, c], b3],  y = [w / s3, 1]
    |pooled|^2 = y' G3 y,    G3 = Gram of q

    cosine = sum_k y_k <v, q_k> / |pooled|,  v = v_0 / |v_0|

The first norm makes n_f = g1 * (x_f - mean) / sd_f + b1 of a frame x_f. So, for each head (W_k, W_v its rows, W_o its
columns, e its width), and up to what is the same for all frames, which a softmax ignores and the weights sum to 1 over:

    logit of a frame         (C w) . x_f / sd_f,        w = g1 * W_k' query / sqrt(e)
    <v, q_f>                 (C r) . x_f / sd_f,        r = g1 * W_v' W_o' m,   m = C (g2 * A' C (g3 * v))
    and what it leaves out   b1 . W_v' W_o' m + b_v . W_o' m,  over the heads, + b_o . m
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
from dits.scoring.ranking import TopVideos, top_of

BLOCK = 8192
"""Videos that are scored in one step where scoring is not on the CPU. See `ExactScorer` on what it promises."""

_VIDEOS_DERIVED_AT_ONCE = 64  # divides BLOCK
_VIDEOS_PER_TASK = 512
_VECTORS_AT_ONCE = 128  # of the texts: a quarter of a megabyte at d = 512, which a core's cache keeps
_SCORES_AT_ONCE = 2**22  # of one block that the best are taken from: 16 MB


@dataclass(frozen=True)
class PreparedVideos:
    """Everything about V videos that scoring needs. K = heads * frames, the terms of the weighted sum, head by head.

    Attributes:
        frames: (V, F, d) float16 or float32, not normalised; any memory, a map of a file included.
        inverse_deviations: (V, F) float32, 1 / sd of each frame's numbers.
        grams: (V, G) float32: the lower triangles of G1, G2 and G3, K, K + 1 and K + 2 wide, row after row, what is off
            the diagonal doubled, so that a quadratic form is a sum over the triangle.

    Raises:
        InputError: the arrays do not belong together.
    """

    frames: Tensor
    inverse_deviations: Tensor
    grams: Tensor

    def __post_init__(self) -> None:
        require(
            self.frames.dtype in (torch.float16, torch.float32),
            f"Frame embeddings are of float16 or float32, not {self.frames.dtype}.",
        )
        require(
            self.inverse_deviations.shape == self.frames.shape[:2] and len(self.grams) == len(self.frames),
            f"What was prepared is not of these {len(self.frames)} videos: prepare them again.",
        )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def device(self) -> torch.device:
        """Where the arrays lie."""
        return self.frames.device

    def __getitem__(self, rows: slice | Tensor) -> "PreparedVideos":
        return PreparedVideos(*(take_rows(array, rows) for array in (self.frames, self.inverse_deviations, self.grams)))

    def choose(self, rows: Tensor) -> "ChosenVideos":
        """The videos at some rows, which are not copied."""
        return ChosenVideos(self, rows)


class ChosenVideos:
    """Some rows of prepared videos, read when they are scored: a block of them fits into a cache, all do not."""

    def __init__(self, videos: PreparedVideos, rows: Tensor) -> None:
        self._videos, self._rows = videos, rows
        self.device = videos.device

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor) -> PreparedVideos:
        return self._videos[self._rows[rows]]

    def choose(self, rows: Tensor) -> "ChosenVideos":
        """See `PreparedVideos.choose`."""
        return ChosenVideos(self._videos, self._rows[rows])


@dataclass(frozen=True)
class _Queries:
    """T texts with X-Pool's maps folded in.

    Attributes:
        vectors: (T, H, 2, d) C w and C r of each head.
        constants: (T, 3) what <v, q_f> leaves out, and <v, q> of c and of b3.
    """

    vectors: Tensor
    constants: Tensor

    def blocks_with(self, scores: Tensor) -> list[tuple["_Queries", Tensor]]:
        """The texts in blocks that one step scores, each with its rows of scores (T, V)."""
        size = max(1, _VECTORS_AT_ONCE // (2 * self.vectors.shape[1]))
        blocks = zip(self.vectors.split(size), self.constants.split(size), scores.split(size), strict=True)
        return [(_Queries(vectors, constants), rows) for vectors, constants, rows in blocks]


class ExactScorer:
    """Scores texts against prepared videos under one X-Pool module, exactly (up to rounding).

    Products are summed in float32, and so are scores, whatever the frames are stored in. A video's score for a given
    text is the same to the last bit whatever other videos are in the array and wherever it stands: on the CPU without
    exception; on a GPU, and in what `derive` computes, in arrays that are cut at multiples of `BLOCK`. On the CPU it
    does not depend on the other texts either, up to 32 of them: see `padded_to_four`.
    """

    def __init__(self, pooling: XPool) -> None:
        self.pooling = pooling
        self.heads = pooling.config.heads

    def prepare(self, frames: Tensor) -> PreparedVideos:
        """The videos (V, F, d), which are not copied, prepared for any number of texts."""
        return PreparedVideos(frames, *self.derive(frames))

    @torch.inference_mode()
    def derive(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What is computed of videos (V, F, d) under these weights: `PreparedVideos.inverse_deviations` and `.grams`.

        To be kept: with both, `PreparedVideos` needs no computation. Long arrays can be given in parts.
        """
        maps = self._maps()
        parts = [
            self._derive_block(padded(block, _VIDEOS_DERIVED_AT_ONCE).float(), maps)
            for block in frames.split(_VIDEOS_DERIVED_AT_ONCE)
        ]
        deviations, grams = zip(*parts, strict=True)
        return torch.cat(deviations)[: len(frames)], torch.cat(grams)[: len(frames)]

    def _derive_block(self, frames: Tensor, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        pool, d = self.pooling, frames.shape[-1]
        normed, _, inverse = torch.native_layer_norm(frames, (d,), None, None, pool.norm_in.eps)
        terms = F.linear(normed, *maps).unflatten(-1, (2, self.heads, d)).permute(2, 0, 3, 1, 4).flatten(2, 3)
        attended, pushed = terms.unbind()  # (V, K, d) each, head by head
        linear = torch.cat([pushed, _centred(self._constant()).expand(len(frames), 1, d)], dim=1)
        bias = pool.norm_out.bias.expand(len(frames), 1, d)
        summed = torch.cat([linear * pool.norm_out.weight, bias], dim=1)
        grams = torch.cat([_packed_gram(attended) / d, _packed_gram(linear) / d, _packed_gram(summed)], dim=1)
        return inverse.squeeze(-1), grams

    def _maps(self) -> tuple[Tensor, Tensor]:
        """Of a frame less its mean and over its deviation: each head's centred u, and then each head's centred p.

        All that lies between is linear, so it is one matrix (2 H d, d) and what is added (2 H d,).
        """
        pool = self.pooling
        output = pool.output.weight.double().unflatten(1, (self.heads, -1)).transpose(0, 1)  # (H, d, e)
        value = pool.value.weight.double().unflatten(0, (self.heads, -1))  # (H, e, d)
        bias = pool.value.bias.double().unflatten(0, (self.heads, -1))[..., None]  # (H, e, 1)
        weight, norm_bias = output @ value, pool.norm_in.bias.double()[:, None]
        added = weight @ norm_bias + output @ bias + pool.output.bias.double()[:, None] / self.heads
        both = torch.cat([weight * pool.norm_in.weight, added], dim=2)  # (H, d, d + 1)
        attended = both - both.mean(dim=1, keepdim=True)
        scaled = attended * pool.norm_attended.weight[:, None]
        pushed = scaled + pool.linear.weight.double() @ scaled
        pushed = pushed - pushed.mean(dim=1, keepdim=True)
        maps = torch.cat([attended.flatten(0, 1), pushed.flatten(0, 1)]).float()
        return maps[:, :-1].contiguous(), maps[:, -1].contiguous()

    def _constant(self) -> Tensor:
        """c (d,)"""
        return self.pooling.norm_attended.bias + self.pooling.linear(self.pooling.norm_attended.bias)

    @torch.inference_mode()
    def scores(self, texts: Tensor, aligned: Tensor, videos: PreparedVideos | ChosenVideos) -> Tensor:
        """Cosines (T, V) of aligned embeddings (T, d) with the videos as pooled by the texts (T, d)."""
        result = texts.new_empty(len(texts), len(videos))
        self._fill(result, self._queries(texts, aligned), videos)
        return result

    @torch.inference_mode()
    def top(self, texts: Tensor, aligned: Tensor, videos: PreparedVideos | ChosenVideos, k: int) -> TopVideos:
        """The k best videos of each text by `scores`, which are not all held at once."""
        return top_of(self._score_blocks(self._queries(texts, aligned), videos), k)

    def _score_blocks(self, queries: _Queries, videos: PreparedVideos | ChosenVideos) -> Iterator[Tensor]:
        texts = len(queries.vectors)
        at_once = max(1, _SCORES_AT_ONCE // (texts * BLOCK)) * BLOCK
        for start in range(0, len(videos), at_once):
            block = videos[start : start + at_once]
            scores = queries.vectors.new_empty(texts, len(block))
            self._fill(scores, queries, block)
            yield scores

    @torch.inference_mode()
    def attention(self, text: Tensor, videos: PreparedVideos | ChosenVideos, rows: Tensor | None = None) -> Tensor:
        """Attention weights (V, F) of one text (d,) over the frames of each video, averaged over the heads.

        Args:
            rows: which videos; all by default.
        """
        vectors = self._attending(padded_to_four(text[None]))[0]
        chosen = torch.arange(len(videos)) if rows is None else rows
        blocks = [videos[block] for block in chosen.to(videos.device).split(BLOCK)]
        logits = [(b.frames.float() @ vectors.T) * b.inverse_deviations[..., None] for b in blocks]
        return torch.cat(logits).softmax(dim=1).mean(dim=2)

    def _queries(self, texts: Tensor, aligned: Tensor) -> _Queries:
        """The texts (T, d) and aligned embeddings (T, d) with the module's maps folded in."""
        folded = self._folded(padded_to_four(texts), padded_to_four(aligned))
        return _Queries(folded.vectors[: len(texts)], folded.constants[: len(texts)])

    def _folded(self, texts: Tensor, aligned: Tensor) -> _Queries:
        pool, heads = self.pooling, self.heads
        unit = F.normalize(aligned, dim=-1)
        before_norm = _centred(unit * pool.norm_out.weight)
        attended = _centred((before_norm + before_norm @ pool.linear.weight) * pool.norm_attended.weight)
        weighed = attended @ pool.output.weight
        value = pool.value.weight.unflatten(0, (heads, -1))  # (H, e, d)
        for_values = torch.einsum("the,hed->thd", weighed.unflatten(-1, (heads, -1)), value)
        left_out = for_values.sum(dim=1) @ pool.norm_in.bias + weighed @ pool.value.bias + attended @ pool.output.bias
        constants = torch.stack([left_out, before_norm @ self._constant(), unit @ pool.norm_out.bias], dim=1)
        vectors = torch.stack([self._attending(texts), self._of_frames(for_values)], dim=2)
        return _Queries(vectors, constants)

    def _attending(self, texts: Tensor) -> Tensor:
        """C w (T, H, d) of texts (T, d)."""
        pool, heads = self.pooling, self.heads
        query = pool.query(pool.norm_in(texts)).unflatten(-1, (heads, -1))
        key = pool.key.weight.unflatten(0, (heads, -1))  # (H, e, d)
        return self._of_frames(torch.einsum("the,hed->thd", query / math.sqrt(query.shape[-1]), key))

    def _of_frames(self, vectors: Tensor) -> Tensor:
        """What multiplies a frame over its deviation, of what multiplies one that is normed (T, H, d)."""
        # 1 / sd is large: what is left of the mean counts
        return _centred((vectors * self.pooling.norm_in.weight).double()).float()

    def _fill(self, scores: Tensor, queries: _Queries, videos: PreparedVideos | ChosenVideos) -> None:
        """Writes the scores (T, V)."""
        fill = self._fill_on_cpu if scores.device.type == "cpu" else self._fill_on_gpu
        fill(scores, queries, videos, (self.pooling.norm_attended.eps, self.pooling.norm_out.eps))

    def _fill_on_cpu(
        self, scores: Tensor, queries: _Queries, videos: PreparedVideos | ChosenVideos, eps: tuple[float, float]
    ) -> None:
        from dits.scoring.kernel import score_videos  # numba, which takes half a second to import

        def fill(task: tuple[slice, _Queries, Tensor]) -> None:
            v, some, part = task
            block = videos[v]
            frames = block.frames.view(torch.uint16) if block.frames.dtype == torch.float16 else block.frames
            arrays = (frames, block.inverse_deviations, block.grams, some.vectors, some.constants)
            score_videos(*(array.contiguous().numpy() for array in arrays), *map(np.float32, eps), part[:, v].numpy())

        tasks = [
            (slice(start, start + _VIDEOS_PER_TASK), some, part)
            for start in range(0, len(videos), _VIDEOS_PER_TASK)
            for some, part in queries.blocks_with(scores)
        ]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, tasks))

    def _fill_on_gpu(
        self, scores: Tensor, queries: _Queries, videos: PreparedVideos | ChosenVideos, eps: tuple[float, float]
    ) -> None:
        for start in range(0, len(videos), BLOCK):
            v = slice(start, start + BLOCK)
            of_block = videos[v]
            frames, inverse, grams = (
                padded(array, BLOCK) for array in (of_block.frames, of_block.inverse_deviations, of_block.grams)
            )
            for some, part in queries.blocks_with(scores):
                block = score_block(frames, inverse, grams, some.vectors, some.constants, *eps)
                part[:, v] = block[:, : len(videos) - start]


def take_rows(array: Tensor, rows: slice | Tensor) -> Tensor:
    """Rows of an array; a slice is not copied. Of memory, NumPy copies rows several times faster than PyTorch does."""
    if isinstance(rows, slice) or array.device.type != "cpu":
        return array[rows]
    return torch.from_numpy(np.take(array.numpy(), rows.numpy(), axis=0))


def padded(array: Tensor, length: int) -> Tensor:
    """The array with rows of zeros up to a length: the shape of a product of matrices decides how it is summed."""
    return torch.cat([array, array.new_zeros(length - len(array), *array.shape[1:])]) if len(array) < length else array


def padded_to_four(array: Tensor) -> Tensor:
    """The array with rows of zeros up to a multiple of four: products of so many rows treat each row alike on CPUs."""
    return padded(array, -(-len(array) // 4) * 4)


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(dim=-1, keepdim=True)


def _packed_gram(vectors: Tensor) -> Tensor:
    """The Gram matrices of vectors (V, K, d), as `PreparedVideos` packs them: (V, K (K + 1) / 2)."""
    gram = vectors @ vectors.transpose(-1, -2)
    rows, columns = torch.tril_indices(*gram.shape[1:], device=gram.device)
    return gram[:, rows, columns] * torch.where(rows == columns, 1.0, 2.0)

"""X-Pool's plain module against a literal re-statement of it, and the exact scorer against the plain module."""

import math

import pytest
import torch
import torch.nn.functional as F

from dits.errors import InputError
from dits.pooling import PoolingConfig, XPool, mean_pool
from dits.scoring import ExactScorer
from tests.plain import xpool_similarity


def random_xpool(dim=48, heads=1, seed=0):
    """X-Pool with every weight, LayerNorm weights and biases included, far from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    pooling = XPool(PoolingConfig(dim=dim, heads=heads))
    for parameter in pooling.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return pooling.eval()


def inputs(texts, videos, frames=12, dim=48, seed=1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return 3 * draw(texts, dim), 3 * draw(texts, dim), 2 * draw(videos, frames, dim) + 1


def pair_by_pair(pooling, texts, aligned, frames):
    """One pair at a time, one head at a time, in double precision: video i pooled by text j."""
    pooling = pooling.double()
    heads, width = pooling.config.heads, texts.shape[-1] // pooling.config.heads
    scores = torch.empty(len(texts), len(frames), dtype=torch.float64)
    for j, (text, moved) in enumerate(zip(texts.double(), aligned.double(), strict=True)):
        for i, video in enumerate(frames.double()):
            query, normed = pooling.query(pooling.norm_in(text)), pooling.norm_in(video)
            keys, values = pooling.key(normed), pooling.value(normed)
            parts = []
            for h in range(heads):
                part = slice(h * width, (h + 1) * width)
                weights = torch.softmax(keys[:, part] @ query[part] / math.sqrt(width), dim=0)
                parts.append(weights @ values[:, part])
            attended = pooling.norm_attended(pooling.output(torch.cat(parts)))
            pooled = pooling.norm_out(attended + pooling.linear(attended))
            scores[j, i] = F.cosine_similarity(moved, pooled, dim=0)
    pooling.float()
    return scores.float()


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("texts", "videos"), [(7, 4), (3, 9)])
def test_plain_module_pools_each_video_by_the_pairs_own_text(texts, videos, heads):
    pooling = random_xpool(heads=heads)
    data = inputs(texts, videos)
    torch.testing.assert_close(xpool_similarity(pooling, *data), pair_by_pair(pooling, *data), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("texts", "videos", "frames"), [(1, 1, 1), (5, 8, 12), (40, 3, 5), (2, 700, 12)])
def test_exact_scorer_equals_the_plain_module(texts, videos, frames, heads):
    pooling = random_xpool(heads=heads)
    text, aligned, video = inputs(texts, videos, frames)
    scorer = ExactScorer(pooling)
    scores = scorer.scores(text, aligned, scorer.prepare(video))
    torch.testing.assert_close(scores, xpool_similarity(pooling, text, aligned, video), atol=1e-5, rtol=0)


def test_exact_scorer_at_full_width_and_in_many_blocks():
    pooling = random_xpool(dim=512)
    text, aligned, video = inputs(1100, 400, dim=512)
    scorer = ExactScorer(pooling)
    scores = scorer.scores(text, aligned, scorer.prepare(video))
    rows = torch.tensor([0, 1, 511, 512, 1099])
    plain = xpool_similarity(pooling, text[rows], aligned[rows], video)
    torch.testing.assert_close(scores[rows], plain, atol=1e-5, rtol=0)


def test_permuting_the_gallery_permutes_the_scores():
    pooling = random_xpool()
    text, aligned, video = inputs(6, 10)
    scorer = ExactScorer(pooling)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    scores = scorer.scores(text, aligned, scorer.prepare(video))
    torch.testing.assert_close(scorer.scores(text, aligned, scorer.prepare(video[order])), scores[:, order])


def test_frame_order_does_not_matter():
    pooling = random_xpool()
    text, aligned, video = inputs(4, 5)
    torch.testing.assert_close(
        xpool_similarity(pooling, text, aligned, video), xpool_similarity(pooling, text, aligned, video.flip(1))
    )


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_of_the_scorer_is_that_of_the_module(heads):
    pooling = random_xpool(heads=heads)
    text, _, video = inputs(1, 6)
    scorer = ExactScorer(pooling)
    weights = scorer.attention(text[0], scorer.prepare(video))
    torch.testing.assert_close(weights, pooling.attention(text, video)[0].mean(dim=1))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))


def test_untrained_xpool_is_attention_on_normalised_features():
    pooling = XPool(PoolingConfig(dim=48)).eval()
    text, _, video = inputs(2, 3)
    normed = F.layer_norm(video, (48,))
    weights = torch.softmax(torch.einsum("td,vfd->tvf", F.layer_norm(text, (48,)), normed) / math.sqrt(48), dim=-1)
    attended = F.layer_norm(torch.einsum("tvf,vfd->tvd", weights, normed), (48,))
    torch.testing.assert_close(pooling(text, video), F.layer_norm(2 * attended, (48,)))


def test_mean_pool_normalises_frames_before_and_after():
    video = mean_pool(torch.tensor([[[10.0, 0.0], [0.0, 0.1]]]))
    torch.testing.assert_close(video, torch.full((1, 2), math.sqrt(0.5)))


def test_refuses_heads_that_do_not_fit():
    with pytest.raises(InputError, match="heads"):
        PoolingConfig(dim=10, heads=3)

"""X-Pool's plain module against a literal re-statement of it, and the exact scorer against the plain module."""

import math

import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import InputError
from dits.models.pooling import PoolingConfig, XPool, mean_pool
from dits.scoring.exact import BLOCK, ExactScorer, PreparedVideos
from dits.scoring.gpu import score_block, split_to_float16
from tests.helpers.plain import xpool_similarity


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


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_frames_of_float16_are_scored_as_their_values_are(heads):
    pooling = random_xpool(heads=heads)
    text, aligned, video = inputs(9, 20)
    scorer, stored = ExactScorer(pooling), video.half()
    videos = scorer.prepare(stored)
    expected = xpool_similarity(pooling, text, aligned, stored.float())
    torch.testing.assert_close(scorer.scores(text, aligned, videos), expected, atol=1e-5, rtol=0)
    attention = pooling.attention(text[:1], stored.float())[0].mean(dim=1)
    torch.testing.assert_close(scorer.attention(text[0], videos), attention)
    assert videos.frames.data_ptr() == stored.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_frames_without_any_contrast_and_frames_far_from_the_others(dtype):
    """A constant frame has a deviation of 0: only the norm's eps keeps it finite."""
    pooling = random_xpool()
    text, aligned, video = inputs(4, 6)
    video[0] = 0
    video[1, 3:] = 0.7
    video[2] *= 1e-3
    video[3, 0] *= 1000
    video[4, :, 7] += 200
    video[5] = video[5, :1]
    video = video.to(dtype)
    scorer = ExactScorer(pooling)
    scores = scorer.scores(text, aligned, scorer.prepare(video))
    torch.testing.assert_close(scores, pair_by_pair(pooling, text, aligned, video.float()), atol=2e-5, rtol=0)


def test_permuting_the_gallery_permutes_the_scores():
    pooling = random_xpool()
    text, aligned, video = inputs(6, 10)
    scorer = ExactScorer(pooling)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    scores = scorer.scores(text, aligned, scorer.prepare(video))
    torch.testing.assert_close(scorer.scores(text, aligned, scorer.prepare(video[order])), scores[:, order])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("texts", [1, 70])
def test_a_score_is_the_same_to_the_last_bit_wherever_its_video_stands(texts, dtype):
    text, aligned, video = inputs(texts, 1100, frames=5)
    scorer = ExactScorer(random_xpool(heads=3))
    videos = scorer.prepare(video.to(dtype))
    scores = scorer.scores(text, aligned, videos)
    order = torch.randperm(1100, generator=torch.Generator().manual_seed(2))
    assert torch.equal(scorer.scores(text, aligned, videos[order]), scores[:, order])
    for start, end in ((0, 1), (1, 8), (511, 1024), (7, 1100)):
        assert torch.equal(scorer.scores(text, aligned, videos[start:end]), scores[:, start:end])
    best = scorer.top(text, aligned, videos[order], 20)
    assert torch.equal(best.scores, scores.sort(dim=1, descending=True).values[:, :20])


def test_what_is_derived_in_parts_is_that_of_the_whole_to_the_last_bit():
    _, _, video = inputs(1, BLOCK + 100, frames=2, dim=16)
    scorer = ExactScorer(random_xpool(dim=16))
    whole = scorer.derive(video.half())
    parts = zip(scorer.derive(video[:BLOCK].half()), scorer.derive(video[BLOCK:].half()), strict=True)
    assert all(torch.equal(torch.cat(part), values) for part, values in zip(parts, whole, strict=True))


def test_the_best_are_those_of_a_full_sort_and_their_spread_that_of_all_scores():
    """In several blocks, with every video there twice: equal scores stand in the order of their rows."""
    text, aligned, video = inputs(600, 4200, frames=2, dim=16)
    scorer = ExactScorer(random_xpool(dim=16))
    videos = scorer.prepare(video)[torch.arange(2 * 4200) % 4200]
    assert len(videos) > BLOCK
    scores, best = scorer.scores(text, aligned, videos), scorer.top(text, aligned, videos, 7)
    ordered = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(best.scores, ordered.values[:, :7])
    assert torch.equal(best.rows, ordered.indices[:, :7])
    assert torch.equal(best.lowest, scores.amin(dim=1))
    assert torch.equal(best.highest, scores.amax(dim=1))
    torch.testing.assert_close(best.mean, scores.mean(dim=1), atol=1e-6, rtol=0)
    torch.testing.assert_close(best.deviation, scores.std(dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("heads", "frames"), [(1, 12), (3, 5)])
def test_the_gpus_arithmetic_is_the_kernels(heads, frames):
    """It runs on any device, but for the product of float16, which only a GPU has."""
    text, aligned, video = inputs(9, 30, frames)
    scorer = ExactScorer(random_xpool(heads=heads))
    videos = scorer.prepare(video.half())
    queries = scorer._queries(text, aligned)
    norms = scorer.pooling.norm_attended, scorer.pooling.norm_out
    with torch.inference_mode():
        scores = score_block(
            videos.frames,
            videos.inverse_deviations,
            videos.grams,
            queries.vectors,
            queries.constants,
            *(norm.eps for norm in norms),
        )
    torch.testing.assert_close(scores, scorer.scores(text, aligned, videos), atol=1e-6, rtol=0)


def test_two_numbers_of_float16_are_one_to_22_bits():
    numbers = 2 * torch.rand(10_000, generator=torch.Generator().manual_seed(0)) - 1
    high, low = split_to_float16(numbers)
    assert high.dtype == low.dtype == torch.float16
    error = (high.double() + low.double() / 2048 - numbers.double()).abs()
    assert float(error.max()) <= 2.0**-23


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gpu_scores_as_the_cpu_does_and_the_same_in_parts(dtype):
    text, aligned, video = inputs(9, BLOCK + 100, frames=3)
    pooling = random_xpool(heads=3)
    scorer = ExactScorer(pooling)
    expected = scorer.scores(text, aligned, scorer.prepare(video.to(dtype)))
    scorer = ExactScorer(pooling.cuda())
    text, aligned, videos = text.cuda(), aligned.cuda(), scorer.prepare(video.to(dtype).cuda())
    scores = scorer.scores(text, aligned, videos)
    torch.testing.assert_close(scores.cpu(), expected, atol=2e-5, rtol=0)
    assert torch.equal(scorer.scores(text, aligned, videos[BLOCK:]), scores[:, BLOCK:])


def test_arrays_that_do_not_belong_together_are_refused():
    videos = ExactScorer(random_xpool()).prepare(inputs(1, 4)[2])
    with pytest.raises(InputError, match="do not belong to these 3 videos"):
        PreparedVideos(videos.frames[:3], videos.inverse_deviations, videos.grams)
    with pytest.raises(InputError, match="float16 or float32"):
        PreparedVideos(videos.frames.double(), videos.inverse_deviations, videos.grams)


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
    rows = torch.tensor([4, 0])
    torch.testing.assert_close(scorer.attention(text[0], scorer.prepare(video), rows), weights[rows])


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


def test_mean_pool_of_float16_is_that_of_the_values():
    frames = torch.randn(2500, 3, 16, generator=torch.Generator().manual_seed(0)).half()
    expected = F.normalize(F.normalize(frames.float(), dim=-1).mean(dim=1), dim=-1)
    torch.testing.assert_close(mean_pool(frames), expected)


def test_refuses_heads_that_do_not_fit():
    with pytest.raises(InputError, match="heads"):
        PoolingConfig(dim=10, heads=3)

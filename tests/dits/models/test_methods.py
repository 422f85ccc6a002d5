"""The registry's methods, each against its definition written out plainly."""

import math

import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import InputError
from dits.evaluation.leak import leaky_scores
from dits.models.alignment import MeanShift, ResidualMLP
from dits.models.baselines import (
    DiffusionAlignment,
    DiffusionConfig,
    FixedPrior,
    PriorConfig,
    StochasticConfig,
    StochasticText,
)
from dits.models.network import AlignmentConfig, AlignmentNetwork
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import METHODS, ModelConfig, RetrievalModel
from dits.models.sampler import DitsSampler, SamplerConfig
from dits.scoring.gallery import build_gallery

DIM, FRAMES = 32, 12
NETWORK = AlignmentConfig(dim=DIM, depth=1, heads=4, timestep_features=16, zero_init=False)


def scrambled(module, seed=0):
    """The module with every parameter away from its special initial value."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model_for(method, pooling="xpool", attend_with="text", **sampler):
    torch.manual_seed(0)
    pooled = PoolingConfig(dim=DIM, kind=pooling, attend_with=attend_with)
    return scrambled(
        RetrievalModel(ModelConfig(method, pooled, SamplerConfig(**{"steps": 3} | sampler), network=NETWORK))
    )


VARIANTS = [
    *((method, {}) for method in METHODS),
    *((method, {"pooling": "mean"}) for method in METHODS),
    ("dits", {"attend_with": "aligned"}),
    ("mlp", {"attend_with": "aligned"}),
    ("dits", {"step_size": "uniform"}),
    ("dits", {"condition": "text"}),
    ("dits", {"condition": "video"}),
    ("dits", {"condition": "both", "pooling": "mean"}),
    ("dits", {"direction": "video-to-text"}),
    ("dits", {"start": "gaussian", "condition": "text"}),
    ("dits", {"start": "gaussian", "condition": "both"}),
    ("dits", {"inference_noise_scale": 1.0, "inference_samples": 3}),
]


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=lambda value: str(value))
def test_a_gallery_scores_as_the_plain_definition_does(method, options):
    model, texts, frames = model_for(method, **options), draw(5, DIM), draw(7, FRAMES, DIM, seed=2)
    with torch.no_grad():
        expected = model.similarity(texts, frames)
    scores = build_gallery(model, frames).scores(texts)
    assert scores.shape == (5, 7)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    weights = build_gallery(model, frames).frame_weights(texts[0])
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(7))


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=lambda value: str(value))
def test_a_permuted_gallery_gives_permuted_scores(method, options):
    model, texts, frames = model_for(method, **options), draw(4, DIM), draw(6, FRAMES, DIM, seed=2)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = build_gallery(model, frames).scores(texts)[:, order]
    torch.testing.assert_close(build_gallery(model, frames[order]).scores(texts), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("mean", "shift", "prior")])
def test_every_trained_part_gets_a_gradient(method):
    model = model_for(method).train()
    model.loss(draw(6, DIM), draw(6, FRAMES, DIM, seed=2)).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert [name for name in idle if "key.bias" not in name] == []  # a softmax over frames ignores the key's bias


def test_no_fraction_of_the_gallery_is_pooled_by_its_own_text():
    """Scores of one text do not depend on the other texts of the call: nothing leaks between pairs."""
    frames = draw(6, FRAMES, DIM, seed=2)
    for method, options in VARIANTS:
        if "inference_noise_scale" in options or "start" in options or method in ("prior", "diffusion"):
            continue  # what is drawn depends on the position of a text in the call
        gallery, texts = build_gallery(model_for(method, **options), frames), draw(5, DIM)
        torch.testing.assert_close(gallery.scores(texts)[:1], gallery.scores(texts[:1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("method", "options"), VARIANTS, ids=lambda value: str(value))
def test_the_leak_is_in_what_a_video_is_pooled_by(method, options):
    """On its own pair nothing changes; elsewhere the leaky score is that of a video pooled by its own text."""
    model, texts, frames = model_for(method, **options), draw(6, DIM), draw(6, FRAMES, DIM, seed=2)
    leaky, proper = leaky_scores(model, texts, frames), build_gallery(model, frames).scores(texts)
    torch.testing.assert_close(leaky.diagonal(), proper.diagonal(), atol=1e-5, rtol=0)
    off = ~torch.eye(6, dtype=torch.bool)
    pooled_by_text = method != "mean" and options.get("pooling") != "mean"
    assert (float((leaky - proper)[off].abs().mean()) > 1e-3) == pooled_by_text


# --- The sampler's options ---


def test_uniform_steps_are_fractions_of_the_whole():
    sampler = scrambled(DitsSampler(SamplerConfig(steps=4, step_size="uniform"), NETWORK))
    point = text = draw(3, DIM)
    for i in (4, 3, 2, 1):
        point = point - 0.25 * sampler.network(point, torch.tensor(i))
    torch.testing.assert_close(sampler.sample(text), point, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("condition", ["video", "both"])
def test_a_video_condition_gives_every_pair_its_own_trajectory(condition):
    """Against a loop over pairs, each with its own network calls."""
    sampler = scrambled(DitsSampler(SamplerConfig(steps=3, condition=condition), NETWORK))
    texts, pooled = draw(4, DIM), draw(4, 5, DIM, seed=2)
    expected = torch.empty(4, 5)
    for j in range(4):
        for i in range(5):
            video = pooled[j, i][None]
            given = torch.cat([texts[j][None], video], dim=-1) if condition == "both" else video
            point = texts[j][None]
            for step in (3, 2, 1):
                point = point - sampler.chi[step - 1] * sampler.network(point, torch.tensor(step), given)
            expected[j, i] = F.cosine_similarity(point[0], pooled[j, i], dim=0)
    cosines = sampler.pair_cosines(texts, pooled, draw(5, FRAMES, DIM))
    torch.testing.assert_close(cosines, expected, atol=1e-5, rtol=0)


def test_the_other_direction_moves_the_video():
    sampler = scrambled(DitsSampler(SamplerConfig(steps=2, direction="video-to-text"), NETWORK))
    texts, pooled = draw(3, DIM), draw(3, 4, DIM, seed=2)
    moved = pooled
    for step in (2, 1):
        moved = moved - sampler.chi[step - 1] * sampler.network(moved, torch.tensor(step))
    expected = F.cosine_similarity(texts[:, None], moved, dim=-1)
    torch.testing.assert_close(sampler.pair_cosines(texts, pooled, draw(4, FRAMES, DIM)), expected)


def test_a_condition_changes_where_the_text_goes():
    sampler = scrambled(DitsSampler(SamplerConfig(steps=2, condition="text"), NETWORK))
    plain = scrambled(DitsSampler(SamplerConfig(steps=2), NETWORK))
    plain.network.load_state_dict(sampler.network.state_dict(), strict=False)
    text = draw(3, DIM)
    assert not torch.allclose(sampler.sample(text), plain.sample(text), atol=1e-3)
    torch.nn.init.zeros_(sampler.network.condition_in.weight)
    torch.nn.init.zeros_(sampler.network.condition_in.bias)
    torch.testing.assert_close(sampler.sample(text), plain.sample(text))


def test_a_gaussian_start_knows_its_sentence_only_by_its_condition():
    with pytest.raises(InputError, match="needs the text as a condition"):
        SamplerConfig(start="gaussian")
    sampler = DitsSampler(
        SamplerConfig(steps=3, start="gaussian", condition="text"), AlignmentConfig(dim=DIM, heads=4)
    ).eval()
    points = sampler.trajectory(draw(500, DIM)).detach()
    assert float(points[0].mean()) == pytest.approx(0, abs=0.02)
    assert float(points[0].std()) == pytest.approx(1, abs=0.02)


def test_noise_at_inference_is_seeded_and_averages_out():
    """Without a network the end is the text plus noise of known variance; n samples divide it by n."""
    still = AlignmentConfig(dim=DIM, depth=1, heads=4)
    one = DitsSampler(SamplerConfig(inference_noise_scale=1.0), still).eval()
    many = DitsSampler(SamplerConfig(inference_noise_scale=1.0, inference_samples=25), still).eval()
    text = torch.zeros(2000, DIM)
    assert torch.equal(one.sample(text), one.sample(text))
    assert float(one.sample(text).detach().var()) == pytest.approx(5.35, rel=0.03)  # the sum of beta_2..beta_10
    assert float(many.sample(text).detach().var()) == pytest.approx(5.35 / 25, rel=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        {"step_size": "wild"},
        {"condition": "audio"},
        {"direction": "sideways"},
        {"inference_samples": 0},
        {"start": "gaussian", "direction": "video-to-text"},
    ],
)
def test_refuses_options_that_mean_nothing(wrong):
    with pytest.raises(InputError):
        SamplerConfig(**wrong)


# --- The baselines ---


def test_the_fixed_prior_adds_noise_of_its_variance():
    prior = FixedPrior(PriorConfig(variance=0.1))
    text = torch.full((4000, DIM), 2.0)
    for mode in (True, False):
        moved = prior.train(mode).sample(text)
        assert float(moved.mean()) == pytest.approx(2, abs=0.01)
        assert float(moved.var()) == pytest.approx(0.1, rel=0.03)
    assert torch.equal(prior.sample(text), prior.sample(text))
    assert torch.equal(FixedPrior(PriorConfig(prior_at_inference=False)).eval().sample(text), text)


def plain_ddpm(alignment, text, noise):
    """Equation 7 over the paper's scalars, computed here; noise drawn in the same order."""
    steps = alignment.config.steps
    beta = [0.1 + k * (0.99 - 0.1) / (steps - 1) for k in range(steps)]
    delta = torch.randn(text.shape, generator=noise)
    for i in range(steps, 0, -1):
        alpha, alpha_bar = 1 - beta[i - 1], math.prod(1 - b for b in beta[:i])
        eps = alignment.network(delta, torch.full((len(text),), i), text)
        delta = (delta - (1 - alpha) / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha)
        if i > 1:
            delta = delta + math.sqrt(beta[i - 1]) * torch.randn(text.shape, generator=noise)
    return text + delta


def test_the_diffusion_model_is_equation_7():
    alignment = scrambled(DiffusionAlignment(DiffusionConfig(steps=4), NETWORK))
    text = draw(3, DIM)
    expected = plain_ddpm(alignment, text, torch.Generator().manual_seed(9))
    sampled = alignment.sample(text, torch.Generator().manual_seed(9))
    torch.testing.assert_close(sampled, expected, atol=1e-3, rtol=1e-4)
    points = alignment.trajectory(text, torch.Generator().manual_seed(9))
    assert points.shape == (5, 3, DIM)
    torch.testing.assert_close(points[-1], sampled)


def test_a_network_that_knows_the_noise_recovers_the_gap():
    """With the true eps of every point, (delta_i - sqrt(abar) delta_0) / sqrt(1 - abar), the end is the video."""
    alignment = DiffusionAlignment(DiffusionConfig(steps=10), NETWORK).eval()
    text, video = draw(4, DIM), draw(4, DIM, seed=2)

    class Oracle(torch.nn.Module):
        def forward(self, delta, timestep, condition):
            signal = alignment.alpha_bar[timestep[0] - 1]
            return (delta - signal.sqrt() * (video - text)) / (1 - signal).sqrt()

    alignment.network = Oracle()
    torch.testing.assert_close(alignment.sample(text), video, atol=1e-3, rtol=1e-3)

    alignment.config = DiffusionConfig(steps=10, longest_gap=100.0)  # never reached: the same mean, written otherwise
    torch.testing.assert_close(alignment.sample(text), video, atol=1e-3, rtol=1e-3)


def test_a_bound_out_of_reach_leaves_equation_7():
    alignment = scrambled(DiffusionAlignment(DiffusionConfig(steps=4), NETWORK))
    text = draw(3, DIM)
    plain = alignment.trajectory(text, torch.Generator().manual_seed(9))
    alignment.config = DiffusionConfig(steps=4, longest_gap=1e6)
    bounded = alignment.trajectory(text, torch.Generator().manual_seed(9))
    torch.testing.assert_close(bounded, plain, atol=1e-3, rtol=1e-4)


def test_a_bounded_gap_is_no_longer_than_its_bound_whatever_the_network_says():
    alignment = scrambled(DiffusionAlignment(DiffusionConfig(longest_gap=0.5), NETWORK))
    text = draw(20, DIM)
    gap = (alignment.sample(text) - text).norm(dim=-1)
    assert (gap <= 0.5 * text.norm(dim=-1) * (1 + 1e-5)).all()  # at i = 1 the end is the predicted delta_0
    alignment.config = DiffusionConfig()
    assert ((alignment.sample(text) - text).norm(dim=-1) > 10 * text.norm(dim=-1)).all()


@pytest.mark.parametrize("power", [1, 2])
def test_the_diffusion_loss_of_a_silent_network_is_the_noise_itself(power):
    """E|z| = sqrt(2 / pi), E z^2 = 1."""
    alignment = DiffusionAlignment(DiffusionConfig(), AlignmentConfig(dim=DIM, heads=4))
    torch.manual_seed(0)
    loss = alignment.regression_loss(draw(4000, DIM), draw(4000, DIM, seed=2), power)
    assert float(loss.detach()) == pytest.approx(math.sqrt(2 / math.pi) if power == 1 else 1.0, rel=0.01)


def plain_tmass(alignment, texts, pooled, frames, noise):
    """Pair by pair: the radius of text j and video i, and the best of the samples."""
    scores = torch.empty(len(texts), len(frames))
    samples = [torch.rand(1, texts.shape[1], generator=noise)[0] for _ in range(alignment.config.text_samples)]
    for j, text in enumerate(texts):
        for i, video in enumerate(frames):
            cosines = torch.stack([F.cosine_similarity(text, frame, dim=0) for frame in video])
            radius = torch.exp(alignment.radius.weight @ cosines + alignment.radius.bias)
            scores[j, i] = max(F.cosine_similarity(text + z * radius, pooled[j, i], dim=0) for z in samples)
    return scores


def test_tmass_takes_the_radius_of_the_pair():
    alignment = scrambled(StochasticText(StochasticConfig(text_samples=3), DIM))
    texts, pooled, frames = draw(4, DIM), draw(4, 5, DIM, seed=2), draw(5, FRAMES, DIM, seed=3)
    with torch.no_grad():
        expected = plain_tmass(alignment, texts, pooled, frames, torch.Generator().manual_seed(0))
        torch.testing.assert_close(alignment.pair_cosines(texts, pooled, frames), expected, atol=1e-5, rtol=0)


def test_tmass_support_lies_towards_the_video():
    alignment = scrambled(StochasticText(StochasticConfig(), DIM))
    texts, pooled, frames = draw(4, DIM), draw(4, 4, DIM, seed=2), draw(4, FRAMES, DIM, seed=3)
    (_, sampled), (weight, support) = alignment.training_cosines(texts, pooled, frames)
    assert (sampled.shape, weight) == ((4, 4), 0.8)
    for j in range(4):
        cosines = torch.stack([F.cosine_similarity(texts[j], frame, dim=0) for frame in frames[j]])
        radius = torch.exp(alignment.radius(cosines))
        point = texts[j] + F.normalize(pooled[:, j].mean(dim=0) - texts[j], dim=0) * radius
        expected = F.cosine_similarity(point[None], pooled[j], dim=-1)
        torch.testing.assert_close(support[j], expected, atol=1e-5, rtol=0)


def test_tmass_needs_the_frames_it_was_made_for():
    with pytest.raises(InputError, match="12 frames"):
        StochasticText(StochasticConfig(), DIM).pair_cosines(draw(2, DIM), draw(2, 2, DIM), draw(2, 5, DIM))


# --- The controls ---


def test_the_mean_shift_closes_the_gap_between_the_centroids():
    shift = MeanShift(DIM)
    texts, videos = draw(50, DIM) + 1, draw(50, DIM, seed=2) - 1
    assert torch.equal(shift.train().sample(texts), texts)
    shift.eval().fit(texts, videos)
    moved = shift.sample(texts)
    torch.testing.assert_close(moved.mean(dim=0), F.normalize(videos, dim=-1).mean(dim=0), atol=1e-6, rtol=0)


def test_the_residual_mlp_is_of_the_networks_size_and_starts_at_the_text():
    config = AlignmentConfig()
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(ResidualMLP(config)) == pytest.approx(count(AlignmentNetwork(config)), rel=0.002)
    text = draw(3, 512)
    assert torch.equal(ResidualMLP(config).sample(text), text)
    assert not torch.allclose(scrambled(ResidualMLP(NETWORK)).sample(draw(3, DIM)), draw(3, DIM))


def test_pooling_by_the_aligned_text_attends_with_it():
    by_text, by_aligned = model_for("dits"), model_for("dits", attend_with="aligned")
    text, frames = draw(DIM), draw(6, FRAMES, DIM, seed=2)
    aligned = by_text.align(text[None])[0]
    expected = build_gallery(by_text, frames).frame_weights(aligned)
    torch.testing.assert_close(build_gallery(by_aligned, frames).frame_weights(text), expected)


def test_pairwise_methods_have_no_aligned_text():
    for method, options in (("tmass", {}), ("dits", {"condition": "video"}), ("dits", {"direction": "video-to-text"})):
        model = model_for(method, **options)
        with pytest.raises(InputError, match="every pair"):
            model.align(draw(2, DIM))
        with pytest.raises(InputError, match="every pair"):
            model.trajectory(draw(2, DIM))


# --- Losses ---


@pytest.mark.parametrize(("objective", "power"), [("l2", 2), ("l1", 1)])
def test_regression_is_the_distance_to_the_own_video_as_it_is_pooled(objective, power):
    model, texts, frames = model_for("dits", noise_scale=0.0), draw(5, DIM), draw(5, FRAMES, DIM, seed=2)
    with torch.no_grad():
        aligned = model.align(texts)
        total = 0.0
        for j in range(5):
            video = F.normalize(model.pooling(texts[j : j + 1], frames[j : j + 1])[0, 0], dim=0) * texts[j].norm()
            total += float((aligned[j] - video).abs().pow(power).sum())
    loss = model.loss(texts, frames, objective=objective)
    assert float(loss) == pytest.approx(total / (5 * DIM), rel=1e-5)
    loss.backward()
    assert all(p.grad is None for p in model.pooling.parameters())


def test_ignored_pairs_are_no_negatives():
    """With every other pair ignored the loss of a pair is that of the pair alone: zero."""
    model, texts, frames = model_for("xpool"), draw(4, DIM), draw(4, FRAMES, DIM, seed=2)
    everything = ~torch.eye(4, dtype=torch.bool)
    assert float(model.loss(texts, frames, everything)) == pytest.approx(0, abs=1e-6)
    one = torch.zeros(4, 4, dtype=torch.bool)
    one[0, 1] = True
    logits = model.similarity(texts, frames) * model.logit_scale.exp()
    kept = logits.masked_fill(one, -math.inf)
    expected = (sum(-torch.log_softmax(kept, 1).diagonal()) / 4 + sum(-torch.log_softmax(kept, 0).diagonal()) / 4) / 2
    assert float(model.loss(texts, frames, one)) == pytest.approx(float(expected), rel=1e-5)

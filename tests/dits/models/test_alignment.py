import math

import pytest
import torch
import torch.nn.functional as F

from dits.common.errors import InputError
from dits.models.network import AlignmentConfig, AlignmentNetwork, timestep_features
from dits.models.sampler import DitsSampler, SamplerConfig

SMALL = AlignmentConfig(dim=32, depth=2, heads=4, timestep_features=16)


def scrambled(module, seed=0):
    """The module with every parameter away from its special initial value."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def plain_network(network, point, timestep):
    """DiT over a one-token sequence, written out, with the real softmax attention that the network leaves out."""
    config = network.config

    def modulate(x, shift, scale):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift

    half = config.timestep_features // 2
    frequencies = [10_000 ** (-k / half) for k in range(half)]
    features = torch.tensor([[f(timestep * w) for f in (math.cos, math.sin) for w in frequencies]])
    condition = F.silu(network.timestep_out(F.silu(network.timestep_in(features))))
    x = network.embed(point)[:, None]  # (B, one token, d)
    for block in network.blocks:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = block.modulation(condition).chunk(6, dim=-1)
        q, k, v = block.qkv(modulate(x, shift_a, scale_a)).chunk(3, dim=-1)
        q, k, v = (z.unflatten(-1, (config.heads, -1)).transpose(1, 2) for z in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        x = x + gate_a * block.project((weights @ v).transpose(1, 2).flatten(2))
        x = x + gate_m * block.mlp(modulate(x, shift_m, scale_m))
    shift, scale = network.final_modulation(condition).chunk(2, dim=-1)
    return network.final_linear(modulate(x, shift, scale))[:, 0]


def test_network_is_a_dit_over_one_token():
    network = scrambled(AlignmentNetwork(SMALL))
    point = torch.randn(5, 32)
    for timestep in (1, 7, 10):
        expected = plain_network(network, point, timestep)
        torch.testing.assert_close(network(point, torch.tensor(timestep)), expected, atol=1e-5, rtol=1e-5)


def test_network_takes_one_timestep_per_row():
    network = scrambled(AlignmentNetwork(SMALL))
    point, timesteps = torch.randn(3, 32), torch.tensor([1, 5, 9])
    rows = [network(point[i : i + 1], timesteps[i]) for i in range(3)]
    torch.testing.assert_close(network(point, timesteps), torch.cat(rows))


def test_sampler_is_equation_8():
    """Against a loop over the paper's scalars, computed here; noise drawn in the same order."""
    sampler = scrambled(DitsSampler(SamplerConfig(steps=4, inference_noise_scale=1.0), SMALL))
    text = torch.randn(3, 32)
    beta = [0.1 + k * (0.99 - 0.1) / 3 for k in range(4)]
    noise = torch.Generator().manual_seed(5)
    point = text
    for i in (4, 3, 2, 1):
        alpha, alpha_bar = 1 - beta[i - 1], math.prod(1 - b for b in beta[:i])
        chi = (1 - alpha) / math.sqrt(alpha - alpha * alpha_bar)
        point = point - chi * sampler.network(point, torch.tensor(i))
        if i > 1:
            point = point + math.sqrt(beta[i - 1]) * torch.randn(3, 32, generator=noise)
    sampled = sampler.sample(text, torch.Generator().manual_seed(5))
    torch.testing.assert_close(sampled, point, atol=1e-4, rtol=1e-4)


def test_zero_initialised_sampler_leaves_the_text_where_it_is():
    sampler = DitsSampler(SamplerConfig(), AlignmentConfig(dim=64, heads=4)).eval()
    text = torch.randn(4, 64)
    assert torch.equal(sampler.sample(text), text)


def test_without_zero_initialisation_it_moves():
    sampler = DitsSampler(SamplerConfig(), AlignmentConfig(dim=64, heads=4, zero_init=False)).eval()
    text = torch.randn(4, 64)
    assert (sampler.sample(text) - text).norm() > 1


def test_trajectory_starts_at_the_text_and_ends_where_sample_ends():
    sampler = scrambled(DitsSampler(SamplerConfig(steps=6), SMALL))
    text = torch.randn(3, 32)
    points = sampler.trajectory(text)
    assert points.shape == (7, 3, 32)
    assert torch.equal(points[0], text)
    assert torch.equal(points[-1], sampler.sample(text))


def test_noise_is_on_in_training_and_off_at_inference_by_default():
    sampler = DitsSampler(SamplerConfig(steps=10), SMALL)
    text = torch.zeros(2000, 32)
    spread = sampler.train().sample(text, torch.Generator().manual_seed(0)).detach().var()
    assert float(spread) == pytest.approx(5.35, rel=0.02)  # the sum of beta_2..beta_10
    assert torch.equal(sampler.eval().sample(text), text)


def test_noise_is_seeded():
    sampler = DitsSampler(SamplerConfig(steps=3, inference_noise_scale=0.5), SMALL).eval()
    text = torch.randn(2, 32)
    first, second = (sampler.sample(text, torch.Generator().manual_seed(3)) for _ in range(2))
    other = sampler.sample(text, torch.Generator().manual_seed(4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_no_steps_is_xpool():
    sampler = DitsSampler(SamplerConfig(steps=0), SMALL)
    text = torch.randn(2, 32)
    assert torch.equal(sampler.sample(text), text)


def test_input_normalisation_scales_the_start():
    sampler = DitsSampler(SamplerConfig(normalise_input=True, input_norm=7.0), SMALL).eval()
    points = sampler.trajectory(torch.randn(4, 32))
    torch.testing.assert_close(points[0].norm(dim=-1), torch.full((4,), 7.0))


def test_each_row_is_moved_on_its_own():
    sampler = scrambled(DitsSampler(SamplerConfig(steps=5), SMALL))
    text = torch.randn(6, 32)
    torch.testing.assert_close(sampler.sample(text)[2:3], sampler.sample(text[2:3]), atol=1e-5, rtol=1e-5)


def test_paper_network_has_twenty_million_parameters():
    count = sum(p.numel() for p in AlignmentNetwork(AlignmentConfig()).parameters())
    assert 20.0e6 < count < 20.5e6


def test_timestep_features_are_cosines_then_sines():
    features = timestep_features(torch.tensor([0, 3]), 8)
    assert features[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert float(features[1, 0]) == pytest.approx(math.cos(3))
    assert float(features[1, 4]) == pytest.approx(math.sin(3))


def test_refuses_heads_that_do_not_fit():
    with pytest.raises(InputError, match="heads"):
        AlignmentConfig(dim=30, heads=16)

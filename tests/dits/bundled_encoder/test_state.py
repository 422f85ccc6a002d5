import pytest
import torch
from torch import nn

from dits.bundled_encoder.state import EncoderState
from dits.common.errors import CheckpointError


def state_of(model, averaging=0.5, key=1):
    groups = [({"weight": model.weight}, 0.1), ({"bias": model.bias}, 0.01)]
    return EncoderState(model, groups, averaging, {"key": key})


def model():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def advance(state, steps, validate_every=2):
    for _ in range(steps):
        state.optimizer.zero_grad()
        torch.manual_seed(state.step)
        (state.model(torch.randn(8, 4)) - 1).square().mean().backward()
        state.update(0.5)
        if state.step % validate_every == 0:
            with state.averaged():
                state.record(
                    {"step": state.step, "value": float(state.model.weight.detach().sum())}, lambda r: (r["value"],)
                )


def test_the_average_follows_its_definition():
    module = model()
    state = state_of(module)
    average = module.weight.detach().clone()
    for step in range(1, 7):
        advance(state, 1, validate_every=100)
        decay = min(0.5, step / (step + 10))
        average = decay * average + (1 - decay) * module.weight.detach()
    own = module.weight.detach().clone()
    with state.averaged():
        torch.testing.assert_close(module.weight.detach(), average)
    assert torch.equal(module.weight.detach(), own)


def test_the_best_average_is_kept():
    module = model()
    state = state_of(module)
    seen = {}
    for _ in range(6):
        advance(state, 2)
        with state.averaged():
            seen[state.step] = module.weight.detach().clone()
    state.load_best()
    assert state.best["step"] == max(state.history, key=lambda record: record["value"])["step"]
    assert torch.equal(module.weight.detach(), seen[state.best["step"]])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, first, second = model(), model(), model()
    uninterrupted, half = state_of(whole), state_of(first)
    advance(uninterrupted, 8)
    advance(half, 4)
    half.save(tmp_path / "state.safetensors")
    resumed = state_of(second)
    assert resumed.resume(tmp_path / "state.safetensors")
    advance(resumed, 4)
    assert torch.equal(second.weight, whole.weight)
    assert resumed.history == uninterrupted.history
    resumed.load_best()
    uninterrupted.load_best()
    assert torch.equal(second.bias, whole.bias)


def test_without_a_state_nothing_is_resumed(tmp_path):
    assert not state_of(model()).resume(tmp_path / "none.safetensors")


def test_refuses_the_state_of_another_run_and_a_damaged_one(tmp_path):
    path = tmp_path / "state.safetensors"
    state = state_of(model())
    advance(state, 2)
    state.save(path)
    with pytest.raises(CheckpointError, match="another configuration or other pairs"):
        state_of(model(), key=2).resume(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="is damaged"):
        state_of(model()).resume(path)

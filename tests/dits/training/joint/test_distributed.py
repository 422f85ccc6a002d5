"""Several processes, started by torchrun, compared with one."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dits.common.errors import InputError
from dits.encoders.openclip import load_encoder
from dits.training.joint.distributed import World, joined_world
from tests.conftest import REPOSITORY
from tests.helpers.distributed_worker import CASES, batch_of, joint_model, loss_and_gradients

ALONE = World()


def torchrun(processes, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    """An encoder for this module only, as training changes it."""
    return load_encoder(f"local-dir:{tiny_folder}", device="cpu")


@pytest.fixture(scope="module")
def whole(encoder):
    """Loss and gradients of the batch in one process, without chunks."""
    return loss_and_gradients(joint_model(encoder, ALONE), encoder, 0)


def assert_same(results, expected):
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(results[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_loss_is_that_of_the_definition(encoder, whole):
    """Embeddings from the encoder's methods, the loss from the model's, with the same random draws."""
    model, batch = joint_model(encoder, ALONE), batch_of(encoder, ALONE)
    with torch.inference_mode():
        texts, frames = encoder.module.encode_text(batch.tokens), encoder.encode_pixels(batch.pixels)
        torch.manual_seed(5)
        loss = model.head.loss(texts, frames, batch.ignored)
    torch.testing.assert_close(loss, whole["loss"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_gradients_in_chunks_are_those_of_the_whole_batch(encoder, whole, micro_batch):
    """With dropout and noise, and a smaller last chunk."""
    assert_same(loss_and_gradients(joint_model(encoder, ALONE), encoder, micro_batch), whole)


def test_every_parameter_has_a_gradient(whole):
    """Except the bias of an attention key, which softmax cancels."""
    still = {name for name, value in whole.items() if not value.abs().any()}
    assert still <= {"head.pooling.key.bias"}


def test_recomputed_activations_change_no_gradient(encoder, whole):
    model = joint_model(encoder, ALONE)
    model.checkpoint_activations()
    try:
        for micro_batch in (0, 3):
            assert_same(loss_and_gradients(model, encoder, micro_batch), whole)
    finally:
        encoder.module.set_grad_checkpointing(False)


def test_bf16_is_near_and_the_loss_stays_fp32(encoder, whole):
    results = loss_and_gradients(joint_model(encoder, ALONE, precision="bf16"), encoder, 3)
    assert 0 < abs(results["loss"] - whole["loss"]) < 0.05
    assert all(value.dtype == torch.float32 for value in results.values())


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(encoder, tiny_folder, whole, tmp_path):
    """Through torchrun, gloo and DistributedDataParallel; the whole share at once, and in uneven chunks."""
    done = torchrun(2, "tests/helpers/distributed_worker.py", tiny_folder, tmp_path)
    assert done.returncode == 0, done.stderr
    for name in CASES:
        for rank in (0, 1):
            assert_same(load_file(tmp_path / f"{name}-{rank}.safetensors"), whole)


def test_without_torchrun_a_process_is_alone():
    with joined_world("cpu") as world:
        assert world == ALONE
        assert world.primary
        assert world.share(6) == slice(0, 6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported():
    with pytest.raises(InputError, match="no CUDA device"), joined_world("cuda"):
        pass

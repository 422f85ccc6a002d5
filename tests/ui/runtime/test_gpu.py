"""ZeroGPU: computation on an allocated GPU, and on the CPU if none is allocated."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY
from ui.runtime import gpu

EMBED = """
import json, os, sys, torch
torch.set_num_threads(1)  # as the platform forks this process
from ui.runtime.gpu import DEVICE, ZERO_GPU, ZeroGpu
from dits.encoders.openclip import load_encoder

gpu = ZeroGpu()
own = load_encoder(sys.argv[1], device=DEVICE)
served = gpu.serve(own)
pixels = torch.randint(0, 256, (2, 12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
made = [served.encode_pixels(pixels) for _ in range(2)]
text = torch.equal(served.encode_text(["a dog"]), own.encode_text(["a dog"]))
print(json.dumps({
    "lent": ZERO_GPU, "device": str(served.device), "process": os.getpid(), "text": text,
    "at once": served.segment_batch_size,
    "same": [float((one - own.encode_pixels(pixels)).abs().max()) for one in made],
}))
"""


@pytest.fixture
def embed(tiny_folder, tmp_path):
    """Run a process that embeds frames twice on ZeroGPU; return its results, the platform's log, and stderr."""

    def run(**environment):
        log = tmp_path / "lent"
        log.touch()
        path = os.pathsep.join((str(REPOSITORY / "tests" / "zero_gpu"), str(REPOSITORY)))
        done = subprocess.run(
            [sys.executable, "-c", EMBED, f"local-dir:{tiny_folder}"],
            env=os.environ | {"PYTHONPATH": path, "LENT": str(log)} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), [line.split() for line in log.read_text().splitlines()], done.stderr

    return run


@pytest.mark.slow
def test_frames_are_embedded_in_the_process_that_has_the_gpu(embed):
    found, noted, _ = embed()
    assert found["lent"] is True
    assert found["device"] == "cpu"  # this process must not use the GPU
    assert found["text"] is True
    assert found["at once"] > 1
    assert found["same"] == pytest.approx([0, 0], abs=1e-5)
    processes = {process for process, _ in noted}
    assert len(noted) == 2
    assert len(processes) == 1  # reused between calls, with the model in it
    assert str(found["process"]) not in processes
    assert all(0 < int(seconds) <= 60 for _, seconds in noted)


@pytest.mark.slow
def test_the_cpu_embeds_if_no_gpu_is_allocated_without_an_immediate_retry(embed):
    found, noted, stderr = embed(REFUSED="You have exceeded your GPU quota.")
    assert found["same"] == pytest.approx([0, 0], abs=1e-5)
    assert [process for process, _ in noted] == ["refused"]
    assert "You have exceeded your GPU quota." in stderr


def test_without_zero_gpu_a_function_is_unchanged():
    assert gpu.ZERO_GPU is False
    assert gpu.DEVICE is None
    assert gpu.on_gpu(len, 20) is len


def test_a_served_encoder_behaves_like_the_original(tiny_encoder):
    pixels = torch.randint(0, 256, (1, 12, 3, 32, 32), dtype=torch.uint8)
    served = gpu.ZeroGpu().serve(tiny_encoder)
    torch.testing.assert_close(served.encode_pixels(pixels), tiny_encoder.encode_pixels(pixels))
    assert (served.id, served.dim, served.device) == (tiny_encoder.id, tiny_encoder.dim, tiny_encoder.device)

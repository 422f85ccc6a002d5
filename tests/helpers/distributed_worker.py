"""Run by torchrun in tests/dits/training/joint/test_distributed.py: loss and gradients of one batch, shared by the
processes.

Also imported there, for the same batch in one process.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from dits.encoders.openclip import load_encoder
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.models.sampler import SamplerConfig
from dits.training.joint.distributed import joined_world
from dits.training.joint.model import Batch, GradientStep, JointModel

PAIRS, FRAMES, SEED = 8, 3, 5
TEXTS = [f"a film of number {n}" for n in range(PAIRS)]
CASES = {"whole": 0, "chunks": 3}


def joint_model(encoder, world, method="dits", precision="fp32"):
    """DITS with dropout and noise, and nothing at zero, so that every parameter has a gradient."""
    torch.manual_seed(1)
    config = ModelConfig(
        method,
        PoolingConfig(dim=encoder.dim, dropout=0.3),
        SamplerConfig(steps=3, noise_scale=0.5),
        AlignmentConfig(dim=encoder.dim, depth=1, heads=4, timestep_features=16, zero_init=False, block_dropout=0.1),
    )
    model = JointModel(encoder, RetrievalModel(config), world, precision)
    with torch.no_grad():
        model.head.logit_scale.fill_(2.0)
    return model.train()


def batch_of(encoder, world):
    """A process's share of the batch; two of its pairs are not negatives of each other."""
    pixels = torch.randint(0, 256, (PAIRS, FRAMES, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    ignored = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
    ignored[0, 7] = ignored[7, 0] = True
    share = world.share(PAIRS)
    return Batch(encoder.tokenize(TEXTS)[share], pixels.to(torch.uint8)[share], ignored)


def loss_and_gradients(model, encoder, micro_batch):
    """The loss, and the gradient of every parameter by name."""
    model.zero_grad(set_to_none=True)
    loss = GradientStep(model, micro_batch).backward(batch_of(encoder, model.world), SEED)
    gradients = {
        name: p.grad.detach().clone(memory_format=torch.contiguous_format)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    return {"loss": torch.tensor(loss), **gradients}


def main(folder, out):
    with joined_world("cpu") as world:
        encoder = load_encoder(f"local-dir:{folder}", device="cpu")
        model = joint_model(encoder, world)
        for name, micro_batch in CASES.items():
            results = loss_and_gradients(model, encoder, micro_batch)
            save_file(results, Path(out) / f"{name}-{world.rank}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])

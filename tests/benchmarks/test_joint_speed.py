"""What the project promises about training from video, measured on this machine: `make bench`."""

import os
import time

import numpy as np
import pytest
import torch

from dits.corpora.clip_loader import ClipReader, read_all
from dits.corpora.embeddings import embed_clips
from dits.encoders.openclip import load_encoder
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.training.joint.distributed import World
from dits.training.joint.model import Batch, GradientStep, JointModel

pytestmark = pytest.mark.benchmark

CLIPS, ROUNDS = 24, 3
PAIRS, FRAMES = 32, 12  # a batch of the paper


def test_decoding_and_encoding_against_encoding_alone(benchmark, demo):
    """Demo clips through the bundled encoder, from files and from prepared tensors in turn.

    Promise: decoding plus encoding reaches at least 85 % of the encoder's own throughput. The share is the median over
    rounds, each of which measures both. Where other programs take the processors it says little; the share of the
    processor time that encoding takes, when one process does both, holds there too.
    """
    encoder = load_encoder()
    clips = demo.clips[:CLIPS]
    prepared = [clip.pixels for clip in read_all(clips, ClipReader(encoder.transform))]
    workers = max(1, min(8, len(os.sched_getaffinity(0)) - 1))
    shares = {0: [], workers: []}

    def encode():
        for pixels in prepared:
            encoder.encode_pixels(pixels[None])

    encode()
    embed_clips(clips[:2], encoder, workers=workers)  # starts the process that workers come from
    for _ in range(ROUNDS):
        alone = seconds(encode)
        for count, measured in shares.items():
            measured.append(alone / seconds(lambda n=count: embed_clips(clips, encoder, workers=n)))
    benchmark.pedantic(encode, rounds=1)
    processor = [process_seconds(run) for run in (encode, lambda: embed_clips(clips, encoder, workers=0))]
    benchmark.extra_info["share_of_processor_time"] = processor[0] / processor[1]
    benchmark.extra_info["clips_a_second_encoding_alone"] = CLIPS / alone
    for count, measured in shares.items():
        benchmark.extra_info[f"share_with_{count}_workers"] = float(np.median(measured))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16"])
@pytest.mark.parametrize("micro_batch", [0, 8])
def test_one_joint_step(benchmark, tmp_path, name, precision, micro_batch):
    """A step of DITS and a CLIP of the paper, 32 pairs by 12 frames: time and peak memory.

    Beside it, the sum of the forward and backward passes of the towers alone, on the same inputs.
    """
    import open_clip
    from safetensors.torch import save_file

    save_file(open_clip.create_model(name).state_dict(), tmp_path / "clip.safetensors")
    encoder = load_encoder(f"{name}/{tmp_path / 'clip.safetensors'}", device="cuda")
    model = JointModel(encoder, RetrievalModel(ModelConfig("dits")).cuda(), World(device="cuda"), precision).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    step = GradientStep(model, micro_batch)
    pixels = torch.randint(0, 256, (PAIRS, FRAMES, 3, 224, 224), dtype=torch.uint8, device="cuda")
    batch = Batch(encoder.tokenize(["a dog runs along the beach"] * PAIRS).cuda(), pixels)

    def joint():
        optimizer.zero_grad()
        step.backward(batch, 0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        torch.cuda.synchronize()

    def towers_alone():
        optimizer.zero_grad()
        texts, frames = model.embed(batch)
        (texts.sum() + frames.sum()).backward()
        torch.cuda.synchronize()

    for label, run in (("towers_alone", towers_alone), ("joint", joint)):
        run()
        torch.cuda.reset_peak_memory_stats()
        times = [seconds(run) for _ in range(10)]
        benchmark.extra_info[f"{label}_seconds"] = float(np.median(times))
        benchmark.extra_info[f"{label}_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
    benchmark.extra_info["gpu"] = torch.cuda.get_device_name()
    benchmark(joint)


def process_seconds(run):
    started = time.process_time()
    run()
    return time.process_time() - started


def seconds(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started

"""How fast training is, measured on this machine: `make bench`. Every ratio is taken within one run."""

import time

import pytest
import torch
from torch import nn

from dits.clips import ClipReader, read_all, worth_workers
from dits.distributed import World
from dits.embeddings import embed_clips
from dits.encoders import load_encoder
from dits.joint_model import Batch, GradientStep, JointModel
from dits.model import ModelConfig, RetrievalModel
from dits.training import TrainingConfig, pair_data, train

pytestmark = pytest.mark.benchmark

CLIPS = 128
PAIRS, FRAMES = 32, 12


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_decoding_keeps_up_with_encoding(benchmark, demo):
    """Promise: decoding and encoding together reach 85 % of the encoder's own throughput on prepared tensors."""
    encoder = load_encoder()
    clips = demo.clips[:CLIPS]
    pixels = [clip.pixels for clip in read_all(clips, ClipReader(encoder.transform))]
    workers = worth_workers(len(clips))
    encoder.encode_pixels(pixels[0][None])  # warm

    def encode():
        for clip in pixels:
            encoder.encode_pixels(clip[None])

    alone = seconds(encode)
    benchmark.pedantic(embed_clips, args=(clips, encoder), kwargs={"workers": workers}, rounds=1)
    benchmark.extra_info |= {"workers": workers, "share_of_encoder": alone / benchmark.stats.stats.min}


@pytest.mark.parametrize("method", ["xpool", "dits"])
def test_an_epoch_on_cached_features(benchmark, engine, method):
    """The demo corpus's train split. Promise: seconds."""
    corpus = engine.corpus
    data = pair_data(corpus.split("train"), engine.encoder, engine.embeddings)
    few = pair_data(corpus.split("validation"), engine.encoder, engine.embeddings)
    benchmark.pedantic(train, args=(ModelConfig(method), TrainingConfig(epochs=1), data, few), rounds=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_joint_step_on_a_gpu(benchmark, tmp_path, precision):
    """ViT-B/32, 32 pairs of 12 frames: time and memory of a whole step, over the encoder's passes alone."""
    import open_clip
    from safetensors.torch import save_file

    weights = tmp_path / "ViT-B-32.safetensors"
    save_file(open_clip.create_model("ViT-B-32").state_dict(), weights)
    encoder = load_encoder(f"ViT-B-32/{weights}", device="cuda")
    model = JointModel(encoder, RetrievalModel(ModelConfig()).cuda(), World(device="cuda"), precision).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    size = encoder.transform.size
    batch = Batch(
        encoder.tokenize(["a clip of something"] * PAIRS).cuda(),
        torch.randint(256, (PAIRS, FRAMES, 3, *size), dtype=torch.uint8).cuda(),
    )
    step = GradientStep(model)

    def whole():
        optimizer.zero_grad()
        step.backward(batch, 0)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        torch.cuda.synchronize()

    def passes():
        texts, frames = model.embed(batch)
        (texts.sum() + frames.sum()).backward()
        torch.cuda.synchronize()

    for work in (whole, passes):
        work()
    torch.cuda.reset_peak_memory_stats()
    alone = min(seconds(passes) for _ in range(5))
    memory = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    benchmark.pedantic(whole, rounds=5)
    benchmark.extra_info |= {
        "over_passes": benchmark.stats.stats.min / alone,
        "gigabytes": torch.cuda.max_memory_allocated() / 1e9,
        "gigabytes_of_passes": memory / 1e9,
    }

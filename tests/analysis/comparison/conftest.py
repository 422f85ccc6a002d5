import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from analysis.comparison.features import CorpusFeatures, Part
from analysis.comparison.runs import Plan
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.projections import Projections
from dits.models.retrieval import ModelConfig
from dits.training.config import TrainingConfig

DIM, CAPTIONS = 16, 3
VIDEOS = {"train": 12, "validation": 6, "test": 5}


@pytest.fixture
def corpus(tmp_path):
    """Features of a random corpus whose texts resemble their videos, with projections; three captions a video."""
    generator = torch.Generator().manual_seed(0)
    count = sum(VIDEOS.values())
    topics = torch.randn(count, 8, generator=generator)
    frames = (topics @ torch.randn(8, 24, generator=generator))[:, None] + torch.randn(
        count, 12, 24, generator=generator
    )
    texts = (topics @ torch.randn(8, 20, generator=generator)).repeat_interleave(CAPTIONS, dim=0)
    texts = texts + torch.randn(texts.shape, generator=generator)
    save_file({"frames": frames.half()}, tmp_path / "frames")
    save_file({"features": texts[:30].half()}, tmp_path / "texts-1")
    save_file({"features": texts[30:].half()}, tmp_path / "texts-2")
    torch.manual_seed(1)
    projections = Projections(nn.Linear(20, DIM), nn.Linear(24, DIM, bias=False))
    starts = dict(zip(VIDEOS, np.cumsum([0, *VIDEOS.values()]), strict=False))
    parts = {name: part(starts[name], count, CAPTIONS) for name, count in VIDEOS.items()}
    return CorpusFeatures(
        key="key",
        encoder="an encoder",
        temperature=20.0,
        frames=tmp_path / "frames",
        texts=(tmp_path / "texts-1", tmp_path / "texts-2"),
        train=parts["train"],
        validation=parts["validation"],
        queries={"one": part(starts["test"], VIDEOS["test"], 1), "all": parts["test"]},
        projections={name: value.numpy() for name, value in projections.state_dict().items()},
    )


def part(first, videos, captions):
    """The first captions of each video from the video `first` on."""
    video_of = np.repeat(np.arange(videos), captions)
    rows = CAPTIONS * (first + video_of) + np.tile(np.arange(captions), videos)
    return Part(rows, video_of, first + np.arange(videos), f"{captions} captions a video")


@pytest.fixture
def plan(corpus):
    network = AlignmentConfig(dim=DIM, depth=1, heads=4, timestep_features=16)
    training = TrainingConfig(
        epochs=2, epoch_captions=24, batch_size=6, learning_rate=1e-3, projection_rate=1e-3, temperature=20.0
    )
    return Plan(ModelConfig(pooling=PoolingConfig(dim=DIM), network=network), training, corpus)

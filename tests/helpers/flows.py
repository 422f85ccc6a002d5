"""Small flows with random weights: ten texts, two of each of five videos."""

import numpy as np
import torch

from analysis.flow import flow_of
from dits.models.baselines import DiffusionConfig
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.models.sampler import SamplerConfig

VIDEO_OF = np.arange(10) % 5


def points(count, dim=32, seed=1):  # methods use seed 0 for their noise
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def frames(videos=5):
    return points(videos * 4, seed=3).view(videos, 4, 32)


def a_model(method="dits", **settings):
    torch.manual_seed(0)
    network = AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False)
    config = ModelConfig(
        method, PoolingConfig(dim=32), SamplerConfig(steps=3, **settings), network, DiffusionConfig(steps=3)
    )
    return RetrievalModel(config).eval()


def a_flow(model=None, **names):
    return flow_of(model or a_model(), points(10), frames(), VIDEO_OF, **names)

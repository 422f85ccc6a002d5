import numpy as np
import torch

from analysis.trajectory import step_reports
from dits.evaluation import evaluate_scores
from dits.model import ModelConfig, RetrievalModel
from dits.network import AlignmentConfig
from dits.pooling import PoolingConfig
from dits.sampler import SamplerConfig


def points(count=12, dim=8, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_step_reports_start_at_the_text_and_end_at_what_retrieval_uses():
    torch.manual_seed(0)
    network = AlignmentConfig(dim=32, depth=1, heads=4, zero_init=False)
    config = ModelConfig("dits", PoolingConfig(dim=32), SamplerConfig(steps=3), network)
    model = RetrievalModel(config).eval()
    texts, frames, video_of = points(10, 32), points(5 * 4, 32, seed=3).view(5, 4, 32), np.arange(10) % 5
    reports = step_reports(model, texts, frames, video_of)
    assert [report.timestep for report in reports] == [3, 2, 1, 0]
    assert reports[0].step_length == 0
    assert all(report.step_length > 0 for report in reports[1:])
    final = evaluate_scores(model.gallery(frames).scores(texts), video_of)["t2v"]
    assert reports[-1].retrieval.as_dict() == final

"""The measurement of search on a GPU: all of it but the GPU, on CPU tensors."""

import pytest
import torch

from dits.scoring.exact import ExactScorer
from tests.benchmarks.gpu_search import main, measure


def test_the_measurement_on_cpu_tensors(monkeypatch):
    """Through the code that a GPU would run."""
    monkeypatch.setattr(ExactScorer, "_score_into_on_cpu", ExactScorer._score_into_on_gpu)
    report = measure(torch.device("cpu"), 300, rounds=2, copied=2**20)
    assert report.videos == 300
    assert report.gigabytes == pytest.approx(300 * (12 * 512 * 2 + 12 * 4 + (78 + 91 + 105) * 4) / 1e9)
    assert report.largest_difference < 1e-4
    assert report.times_reading == pytest.approx(report.one_query_seconds / report.reading_seconds)
    assert report.times_the_rate == pytest.approx(64 * report.one_query_seconds / report.batch_seconds)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.count(".") == 1

"""How fast training on cached features is, measured on this machine: `make bench`."""

import pytest

from dits.models.retrieval import ModelConfig
from dits.training.trainer import TrainingConfig, pair_data, train

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("method", ["xpool", "dits"])
def test_an_epoch_on_cached_features(benchmark, engine, method):
    """The demo corpus's train split. Promise: seconds."""
    corpus = engine.corpus
    data = pair_data(corpus.split("train"), engine.encoder, engine.embeddings)
    few = pair_data(corpus.split("validation"), engine.encoder, engine.embeddings)
    benchmark.pedantic(train, args=(ModelConfig(method), TrainingConfig(epochs=1), data, few), rounds=1)

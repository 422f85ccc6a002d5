"""From flags to a plan: the corpus, its features, and the budget, for the commands of this package."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.comparison.features import corpus_features
from analysis.comparison.runs import Plan
from dits.common.errors import require
from dits.corpora.datasets.msrvtt_captions import all_captions
from dits.corpora.names import open_corpus
from dits.encoders.openclip import load_encoder
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import MAX_TEMPERATURE, ModelConfig
from dits.training.config import TrainingConfig

BUDGET: dict[str, Any] = {
    "epochs": 4,
    "epoch_captions": 9600,
    "batch_size": 96,
    "learning_rate": 1e-4,
    "projection_rate": 1e-4,
    "temperature": 0.0,
    "precision": "bf16",
}
"""Defaults of the training that differ from those of `TrainingConfig`: 400 steps of 96 pairs."""

NETWORK: dict[str, Any] = {"depth": 1}
"""Defaults of the network that differ from those of `AlignmentConfig`."""


def prepare(
    corpus_name: str,
    encoder_name: str,
    training: TrainingConfig,
    network: Callable[[int], AlignmentConfig],
    joint: bool,
    split: str,
    progress: Callable[[str, int, int], None],
    notice: Callable[[str], None],
    strict: bool = False,
) -> Plan:
    """The plan of a comparison: the corpus opened, and its features computed or read from the cache.

    Args:
        training: its temperature of 0 becomes the encoder's own.
        network: the network's configuration for a width of embeddings.
        joint: whether runs train the encoder's projections.
        split: "test" or "validation" (see `Plan`).
        progress: called with a description of the task, the number of items that are done, and the total.
        notice: called with sentences about missing or unusual content.

    Raises:
        InputError: the encoder's projections cannot be trained, or a split is empty.
        DitsError: the corpus or the encoder cannot be opened, or the features cannot be computed.
    """
    corpus = open_corpus(corpus_name, progress, notice, strict)
    tested = corpus.split("test")
    encoder = load_encoder(encoder_name)
    features = corpus_features(corpus, encoder, all_captions(corpus_name, tested.ids), progress, notice)
    require(
        bool(features.projections) or not joint,
        f"The projections of the encoder {encoder.id} cannot be trained: compare in the frozen mode alone.",
    )
    if not training.temperature:
        training = replace(training, temperature=min(features.temperature, MAX_TEMPERATURE))
    model = ModelConfig(pooling=PoolingConfig(dim=encoder.dim), network=network(encoder.dim))
    return Plan(model, training, features, split)


def shown_name(name: str) -> str:
    """The name of a corpus or an encoder without the place of its folder: "msrvtt-7k:DIR"."""
    kind, colon, folder = name.partition(":")
    if colon and folder:
        return f"{kind}:DIR"
    return Path(name).name if "/" in name and Path(name).exists() else name


def shown_command(arguments: list[str]) -> str:
    """The command `python -m analysis` with these arguments, without places of folders of corpus and encoder."""
    import shlex

    shown, previous = [], ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if previous in ("--corpus", "--encoder"):
            argument = shown_name(argument)
        elif equals and flag in ("--corpus", "--encoder"):
            argument = f"{flag}={shown_name(value)}"
        shown.append(argument)
        previous = argument
    return "python -m analysis " + shlex.join(shown)

"""Weights for any encoder: X-Pool and DITS trained on a corpus's embeddings, with settings chosen on validation.

The weights are stored in the cache folder, one set per encoder (`dits.models.checkpoint.prepared_weights`). They are
bound to the encoder and serve every corpus. The encoder stays frozen, so training takes minutes.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dits.common.errors import CheckpointError, InputError, require
from dits.common.files import cache_root, make_folder, sha256_of_json
from dits.common.memory import memory_errors
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings, corpus_embeddings
from dits.corpora.names import Progress, open_corpus, report_progress
from dits.encoders.openclip import OpenClipEncoder, load_encoder
from dits.evaluation.metrics import Results, evaluate_scores, selection_key
from dits.models.checkpoint import (
    CheckpointHeader,
    bundled_weights,
    find_weights,
    load_checkpoint,
    prepared_weights,
    save_checkpoint,
)
from dits.models.network import AlignmentConfig
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import SEARCH_METHODS, ModelConfig, RetrievalModel
from dits.models.sampler import SamplerConfig
from dits.search.methods import load_method
from dits.training.trainer import PairData, Report, TrainingConfig, TrainingResult, pair_data, train

PREPARED_METHODS = ("xpool", "dits")
"""The methods that `prepare` trains, in the order of training: DITS starts from X-Pool."""

_NAMES = {"xpool": "X-Pool", "dits": "DITS"}
_MAX_HEADS = 16  # as in the paper; fewer if 16 does not divide the width
# Seconds per epoch, caption and squared width on two cores (measured on the demo corpus, width 512).
_SECONDS = {"xpool": 7e-9, "dits": 8e-8}


@dataclass(frozen=True)
class PrepareConfig:
    """How weights are prepared. All learning rates are tried; the best rate and epoch on validation are chosen.

    Attributes:
        epochs: passes over all captions, for each learning rate (3).
        batch_size: pairs in a batch (32).
        xpool_rates: learning rates to try for X-Pool (1e-5 and 3e-5, the two of the paper).
        dits_rates: learning rates to try for DITS, which starts from the chosen X-Pool and trains without noise (3e-6
            and 1e-5; higher rates were worse on the demo corpus).
        seed: seed of initialisation, batches and dropout (24).
    """

    epochs: int = 3
    batch_size: int = 32
    xpool_rates: tuple[float, ...] = (1e-5, 3e-5)
    dits_rates: tuple[float, ...] = (3e-6, 1e-5)
    seed: int = 24

    def __post_init__(self) -> None:
        require(bool(self.xpool_rates and self.dits_rates), "Preparing needs a learning rate for X-Pool and for DITS.")
        for rate in (*self.xpool_rates, *self.dits_rates):
            self.training(rate)  # raises InputError for invalid settings

    def rates(self, method: str) -> tuple[float, ...]:
        """The learning rates to try for a method."""
        return self.xpool_rates if method == "xpool" else self.dits_rates

    def training(self, rate: float) -> TrainingConfig:
        """The training configuration with a learning rate."""
        return TrainingConfig(epochs=self.epochs, batch_size=self.batch_size, learning_rate=rate, seed=self.seed)


@dataclass(frozen=True)
class MethodWeights:
    """The weights of a method, and how they were made.

    Attributes:
        path: the file.
        origin: "trained" in this run, "prepared" earlier, or "shipped".
        corpus: name of the training corpus.
        learning_rate: the chosen learning rate.
        tried: the learning rates that were compared on the validation split; empty if none were compared.
        epoch: the epoch that was best on the validation split.
    """

    path: Path
    origin: str
    corpus: str
    learning_rate: float | None
    tried: tuple[float, ...]
    epoch: int | None


@dataclass(frozen=True)
class PreparedReport:
    """The prepared weights and their retrieval metrics.

    Attributes:
        encoder: id of the encoder.
        corpus: name of the evaluated corpus.
        weights: the weights of each method.
        results: metrics by split ("validation" and "test", if the corpus has them), method and direction. Settings and
            epochs were chosen on the validation split; the test split was used for nothing else.
    """

    encoder: str
    corpus: str
    weights: dict[str, MethodWeights]
    results: dict[str, Results]

    def as_dict(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        weights = {name: asdict(value) | {"path": str(value.path)} for name, value in self.weights.items()}
        return {"encoder": self.encoder, "corpus": self.corpus, "weights": weights, "results": self.results}


def prepare(
    encoder_name: str,
    corpus: str = "demo",
    *,
    config: PrepareConfig | None = None,
    force: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
    notice: Report | None = None,
) -> PreparedReport:
    """Embeds a corpus with an encoder, trains the methods without weights for this encoder, and evaluates.

    An interrupted call is resumed by the next one. Weights are written to the cache folder completely or not at all.

    Args:
        encoder_name: see `dits.encoders.openclip.load_encoder`.
        corpus: see `dits.corpora.names.open_corpus`.
        force: train again even if there are prepared weights.
        strict: see `dits.corpora.names.open_corpus`.
        progress: called with the current task and its finished and total amounts.
        notice: called with sentences about anything else that the caller should know.

    Raises:
        InputError: the corpus has no train or validation split to train with, or the encoder's weights are shipped
            and `force` is given.
        DitsError: anything is missing or damaged; the message says what.
    """
    opened = open_corpus(corpus, progress, notice, strict)
    report_progress(progress, "Loading the encoder", 0, 1)
    encoder = load_encoder(encoder_name)
    if methods_to_train(encoder, force):
        check_trainable(opened)
    embeddings = corpus_embeddings(
        opened, encoder, lambda done, total: report_progress(progress, "Embedding the clips", done, total), notice
    )
    weights = prepare_weights(opened, encoder, embeddings, config=config, force=force, progress=progress, notice=notice)
    report_progress(progress, "Evaluating", 0, 1)
    return PreparedReport(encoder.id, opened.name, weights, _evaluate(opened, encoder, embeddings))


def prepare_weights(
    corpus: Corpus,
    encoder: OpenClipEncoder,
    embeddings: CorpusEmbeddings,
    *,
    config: PrepareConfig | None = None,
    force: bool = False,
    progress: Progress | None = None,
    notice: Report | None = None,
) -> dict[str, MethodWeights]:
    """Trains the methods without weights on the embeddings of a corpus: `prepare` without loading and evaluation.

    Raises:
        InputError: see `prepare`.
        StorageError: the cache folder cannot be written, or the disk is full.
        MemoryFullError: the GPU has no memory left.
        DitsError: the loss is not finite.
    """
    config = config or PrepareConfig()
    needed = methods_to_train(encoder, force, notice)
    if needed:
        check_trainable(corpus)
        for method in needed:
            make_folder(prepared_weights(method, encoder.id).parent)
        with memory_errors():
            _train(needed, corpus, encoder, embeddings, config, progress)
    weights = {method: _method_weights(method, encoder, method in needed) for method in PREPARED_METHODS}
    others = {entry.corpus for entry in weights.values() if entry.origin == "prepared"} - {corpus.name}
    if others and notice:
        notice(
            f"The weights for {encoder.id} were prepared before, on {', '.join(sorted(others))}: they serve every "
            f"corpus. To train them again on {corpus.name}, use --force."
        )
    return weights


def methods_to_train(encoder: OpenClipEncoder, force: bool = False, notice: Report | None = None) -> list[str]:
    """The methods without usable weights for an encoder, in the order of training; all of them with `force`.

    Raises:
        InputError: `force` is given, but shipped weights exist, which are always used first.
        CheckpointError: shipped weights are damaged.
    """
    needed = []
    for method in PREPARED_METHODS:
        path = find_weights(method, encoder.id)
        shipped = path == bundled_weights(method, encoder.id)
        if shipped and force:
            raise InputError(
                f"Weights for the encoder {encoder.id} are shipped, and are used before prepared ones: train your own "
                "with `python -m dits train`, and name their folder with --weights."
            )
        try:
            if not force:
                load_checkpoint(path, encoder, method)
                continue
        except CheckpointError as error:
            if shipped:
                raise
            if notice and path.is_file():
                notice(f"{error} They are trained again.")
        needed.append(method)
    return needed


def check_trainable(corpus: Corpus) -> None:
    """Checks that weights can be trained on the corpus.

    Raises:
        InputError: the train or the validation split is empty.
    """
    missing = [split for split in ("train", "validation") if not any(clip.split == split for clip in corpus)]
    if missing:
        raise InputError(
            f"The corpus '{corpus.name}' has no {' and no '.join(missing)} split, which is needed to prepare weights: "
            "add such clips, or use --corpus demo, as the weights serve every corpus."
        )


def estimated_minutes(corpus: Corpus, encoder: OpenClipEncoder, config: PrepareConfig | None = None) -> int:
    """Estimated training time on two cores in minutes, at least 1, without embedding the clips."""
    config = config or PrepareConfig()
    captions = sum(len(clip.captions) for clip in corpus if clip.split == "train")
    seconds = sum(
        _SECONDS[method] * captions * encoder.dim**2 * config.epochs * len(config.rates(method))
        for method in methods_to_train(encoder)
    )
    return max(1, math.ceil(seconds / 60))


def _train(
    methods: Sequence[str],
    corpus: Corpus,
    encoder: OpenClipEncoder,
    embeddings: CorpusEmbeddings,
    config: PrepareConfig,
    progress: Progress | None,
) -> None:
    """Trains methods, and writes all weights at the end. The state of an interrupted run stays in the cache folder."""
    report_progress(progress, "Embedding the captions", 0, 1)
    data = pair_data(corpus.split("train"), encoder, embeddings)
    validation = pair_data(corpus.split("validation"), encoder, embeddings)
    runs = cache_root() / "training" / prepared_weights("dits", encoder.id).parent.name
    xpool = None if "xpool" in methods else load_checkpoint(find_weights("xpool", encoder.id), encoder).model
    best: dict[str, tuple[TrainingResult, float]] = {}
    for method in methods:
        model = ModelConfig(
            method=method,
            pooling=PoolingConfig(dim=encoder.dim),
            sampler=SamplerConfig(noise_scale=0.0),
            network=AlignmentConfig(dim=encoder.dim, heads=math.gcd(encoder.dim, _MAX_HEADS)),
        )
        init = xpool if method == "dits" else None
        best[method] = _train_with_best_rate(model, config, data, validation, init, runs, progress)
        if method == "xpool":
            xpool = best[method][0].model
    for method, (result, rate) in best.items():
        header = _header(corpus, encoder, result, config, rate)
        save_checkpoint(prepared_weights(method, encoder.id), result.model, header, encoder.fingerprint())
    shutil.rmtree(runs, ignore_errors=True)


def _train_with_best_rate(
    model: ModelConfig,
    config: PrepareConfig,
    data: PairData,
    validation: PairData,
    init: RetrievalModel | None,
    runs: Path,
    progress: Progress | None,
) -> tuple[TrainingResult, float]:
    """The best training result on validation, and its learning rate; the lower rate if two are equal."""
    rates = sorted(config.rates(model.method))
    results = []
    for number, rate in enumerate(rates):

        def on_step(done: int, total: int, before: int = number) -> None:
            report_progress(progress, f"Training {_NAMES[model.method]}", before * total + done, len(rates) * total)

        folder = runs / f"{model.method}-{rate:g}"
        arguments: dict[str, Any] = {"init": init, "run": folder, "on_step": on_step}
        try:
            results.append(train(model, config.training(rate), data, validation, **arguments))
        except CheckpointError:  # the folder holds a damaged state, or one with other settings or data
            shutil.rmtree(folder)
            results.append(train(model, config.training(rate), data, validation, **arguments))
    best = max(range(len(rates)), key=lambda number: selection_key(results[number].best))
    return results[best], rates[best]


def _header(
    corpus: Corpus, encoder: OpenClipEncoder, result: TrainingResult, config: PrepareConfig, rate: float
) -> CheckpointHeader:
    method = result.model.config.method
    captions = sha256_of_json([[clip.id, clip.split, *clip.captions] for clip in corpus])
    tried = {"init": "xpool" if method == "dits" else None, "tried": sorted(config.rates(method))}
    return CheckpointHeader(
        encoder=encoder.id,
        quick_gelu=encoder.quick_gelu,
        dim=encoder.dim,
        config=result.model.config.as_dict(),
        data={"corpus": corpus.name, "split": "train", "selected_on": "validation", "captions": captions},
        training=asdict(config.training(rate)) | tried,
        metric=result.best,
    )


def _method_weights(method: str, encoder: OpenClipEncoder, trained: bool) -> MethodWeights:
    """Describes a weights file from its header; missing or malformed entries become empty."""
    path = find_weights(method, encoder.id)
    header = load_checkpoint(path, encoder, method).header
    data, training, metric = (
        value if isinstance(value, dict) else {} for value in (header.data, header.training, header.metric)
    )
    origin = "shipped" if path == bundled_weights(method, encoder.id) else "prepared"
    tried = training.get("tried")
    return MethodWeights(
        path=path,
        origin="trained" if trained else origin,
        corpus=str(data.get("corpus", "an unnamed corpus")),
        learning_rate=training.get("learning_rate"),
        tried=tuple(tried) if isinstance(tried, list) else (),
        epoch=metric.get("epoch"),
    )


def _evaluate(corpus: Corpus, encoder: OpenClipEncoder, embeddings: CorpusEmbeddings) -> dict[str, Results]:
    results = {}
    for split in ("validation", "test"):
        if not any(clip.split == split for clip in corpus):
            continue
        data = pair_data(corpus.split(split), encoder, embeddings)
        scores = {name: load_method(name, encoder, data.frames).gallery.scores(data.texts) for name in SEARCH_METHODS}
        results[split] = {name: evaluate_scores(values, data.video_of) for name, values in scores.items()}
    return results

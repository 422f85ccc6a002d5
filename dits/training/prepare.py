"""Weights for any encoder: X-Pool and DITS trained on a corpus's embeddings, with settings chosen on validation.

The weights go to the cache folder, one set an encoder (`dits.models.checkpoint.prepared_weights`): they are bound to
the encoder and serve every corpus. The encoder stays frozen, so this takes minutes.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dits.common.errors import CheckpointError, InputError, require
from dits.common.files import cache_root, make_folder, sha256_of_json
from dits.common.memory import memory_errors
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings, corpus_embeddings
from dits.corpora.names import Progress, open_corpus
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
from dits.training.trainer import PairData, TrainingConfig, TrainingResult, pair_data, train

PREPARED_METHODS = ("xpool", "dits")
"""The methods with weights, in the order of training: DITS starts from X-Pool."""

_SPLITS = ("validation", "test")
_NAMES = {"xpool": "X-Pool", "dits": "DITS"}
_MAX_HEADS = 16  # the paper's; a width that they do not divide gets fewer
# One epoch on two cores, over the captions and the square of the width (measured with the demo corpus at 512).
_SECONDS = {"xpool": 7e-9, "dits": 8e-8}

Notice = Callable[[str], None]


@dataclass(frozen=True)
class PrepareConfig:
    """How weights are prepared: every rate is tried, and the rate and epoch that are best on validation are kept.

    Attributes:
        epochs: passes over all captions with every rate (3).
        batch_size: pairs in a batch (32).
        xpool_rates: learning rates tried for X-Pool (1e-5 and 3e-5, the paper's two).
        dits_rates: learning rates tried for DITS, which starts from the X-Pool chosen (3e-6 and 1e-5; on the demo
            corpus higher ones did worse). It trains without noise.
        seed: of initialisation, batches and dropout (24).
    """

    epochs: int = 3
    batch_size: int = 32
    xpool_rates: tuple[float, ...] = (1e-5, 3e-5)
    dits_rates: tuple[float, ...] = (3e-6, 1e-5)
    seed: int = 24

    def __post_init__(self) -> None:
        require(bool(self.xpool_rates and self.dits_rates), "Preparing needs a learning rate for X-Pool and for DITS.")
        for rate in (*self.xpool_rates, *self.dits_rates):
            self.training(rate)  # refuses what cannot be trained with

    def rates(self, method: str) -> tuple[float, ...]:
        """The learning rates tried for a method."""
        return self.xpool_rates if method == "xpool" else self.dits_rates

    def training(self, rate: float) -> TrainingConfig:
        """The training with one of the rates."""
        return TrainingConfig(epochs=self.epochs, batch_size=self.batch_size, learning_rate=rate, seed=self.seed)


@dataclass(frozen=True)
class MethodWeights:
    """A method's weights, and how they came about.

    Attributes:
        path: the file.
        origin: "trained" just now; "prepared" before; "shipped".
        corpus: what they were trained on.
        learning_rate: the rate chosen.
        tried: the rates it was chosen from, on the validation split; none where it was given.
        epoch: the epoch kept, chosen in the same way.
    """

    path: Path
    origin: str
    corpus: str
    learning_rate: float | None
    tried: tuple[float, ...]
    epoch: int | None


@dataclass(frozen=True)
class PreparedReport:
    """What was prepared, and how well it retrieves.

    Attributes:
        encoder: id of the encoder.
        corpus: what was evaluated on.
        weights: by method.
        results: by split, "validation" and "test" as far as the corpus has them: metrics by method and direction. The
            validation split chose settings and epochs, the test split nothing.
    """

    encoder: str
    corpus: str
    weights: dict[str, MethodWeights]
    results: dict[str, Results]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
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
    notice: Notice | None = None,
) -> PreparedReport:
    """Embeds a corpus with an encoder, trains what has no weights for the encoder yet, and evaluates.

    Interrupted and called again, it goes on where it stopped. Weights come to stand in the cache folder whole.

    Args:
        encoder_name: see `dits.encoders.openclip.load_encoder`.
        corpus: see `dits.corpora.names.open_corpus`.
        force: train anew where there are prepared weights.
        strict: see `dits.corpora.names.open_corpus`.
        progress: told what is being done, how much of it is done, and of how much.
        notice: told in a sentence what else is worth knowing.

    Raises:
        InputError: the corpus has no train or validation split to train with, or the encoder's weights are shipped
            and `force` is given.
        DitsError: anything is missing or damaged; the message says what.
    """
    opened = open_corpus(corpus, progress, notice, strict)
    _tell(progress, "Loading the encoder", 0, 1)
    encoder = load_encoder(encoder_name)
    if methods_to_train(encoder, force):
        check_trainable(opened)
    embeddings = corpus_embeddings(
        opened, encoder, lambda done, total: _tell(progress, "Embedding the clips", done, total), notice
    )
    weights = prepare_weights(opened, encoder, embeddings, config=config, force=force, progress=progress, notice=notice)
    _tell(progress, "Evaluating", 0, 1)
    return PreparedReport(encoder.id, opened.name, weights, _results(opened, encoder, embeddings))


def prepare_weights(
    corpus: Corpus,
    encoder: OpenClipEncoder,
    embeddings: CorpusEmbeddings,
    *,
    config: PrepareConfig | None = None,
    force: bool = False,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> dict[str, MethodWeights]:
    """`prepare` without loading and evaluating: trains on a corpus's embeddings what has no weights yet.

    Raises:
        InputError: see `prepare`.
        StorageError: the cache folder cannot be written, or the disk is full.
        MemoryFullError: the GPU has no memory left.
        DitsError: the loss is no number.
    """
    config = config or PrepareConfig()
    needed = methods_to_train(encoder, force, notice)
    if needed:
        check_trainable(corpus)
        for method in needed:
            make_folder(prepared_weights(method, encoder.id).parent)
        with memory_errors():
            _train(needed, corpus, encoder, embeddings, config, progress)
    weights = {method: _described(method, encoder, method in needed) for method in PREPARED_METHODS}
    others = {entry.corpus for entry in weights.values() if entry.origin == "prepared"} - {corpus.name}
    if others and notice:
        notice(
            f"The weights for {encoder.id} were prepared before, on {', '.join(sorted(others))}: they serve every "
            f"corpus, and --force trains them anew on {corpus.name}."
        )
    return weights


def methods_to_train(encoder: OpenClipEncoder, force: bool = False, notice: Notice | None = None) -> list[str]:
    """The methods that have no usable weights for an encoder, in the order of training; all of them where `force`.

    Raises:
        InputError: `force` is given, but shipped weights would be used all the same.
        CheckpointError: shipped weights are damaged.
    """
    needed = []
    for method in PREPARED_METHODS:
        path = find_weights(method, encoder.id)
        shipped = path == bundled_weights(method, encoder.id)
        if shipped and force:
            raise InputError(
                f"Weights for the encoder {encoder.id} are shipped, and come before prepared ones: train your own with "
                "`python -m dits train`, and name their folder with --weights."
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
    """Nothing, where weights can be trained on the corpus.

    Raises:
        InputError: it has no clips to train on, or none to choose settings by.
    """
    absent = [split for split in ("train", "validation") if not any(clip.split == split for clip in corpus)]
    if absent:
        raise InputError(
            f"The corpus '{corpus.name}' has no {' and no '.join(absent)} split, which preparing weights needs: add "
            "such clips, or prepare with --corpus demo, as the weights serve every corpus."
        )


def estimated_minutes(corpus: Corpus, encoder: OpenClipEncoder, config: PrepareConfig | None = None) -> int:
    """About how long training takes on two cores, from one minute, the embedding of the clips left out."""
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
    """Trains methods and writes their weights, all of them at the end. The state of an interrupted run is kept."""
    _tell(progress, "Embedding the captions", 0, 1)
    data = pair_data(corpus.split("train"), encoder, embeddings)
    validation = pair_data(corpus.split("validation"), encoder, embeddings)
    runs = cache_root() / "training" / prepared_weights("dits", encoder.id).parent.name
    xpool = None if "xpool" in methods else load_checkpoint(find_weights("xpool", encoder.id), encoder).model
    found: dict[str, tuple[TrainingResult, float]] = {}
    for method in methods:
        init = xpool if method == "dits" else None
        found[method] = _best_of(_model_config(method, encoder.dim), config, data, validation, init, runs, progress)
        if method == "xpool":
            xpool = found[method][0].model
    for method, (result, rate) in found.items():
        header = _header(corpus, encoder, result, config, rate)
        save_checkpoint(prepared_weights(method, encoder.id), result.model, header, encoder.fingerprint())
    shutil.rmtree(runs, ignore_errors=True)


def _model_config(method: str, dim: int) -> ModelConfig:
    return ModelConfig(
        method=method,
        pooling=PoolingConfig(dim=dim),
        sampler=SamplerConfig(noise_scale=0.0),
        network=AlignmentConfig(dim=dim, heads=math.gcd(dim, _MAX_HEADS)),
    )


def _best_of(
    model: ModelConfig,
    config: PrepareConfig,
    data: PairData,
    validation: PairData,
    init: RetrievalModel | None,
    runs: Path,
    progress: Progress | None,
) -> tuple[TrainingResult, float]:
    """The training that is best on validation, and its learning rate; of equals the lower rate's."""
    rates = sorted(config.rates(model.method))
    results = []
    for number, rate in enumerate(rates):

        def on_step(done: int, total: int, before: int = number) -> None:
            _tell(progress, f"Training {_NAMES[model.method]}", before * total + done, len(rates) * total)

        folder = runs / f"{model.method}-{rate:g}"
        arguments: dict[str, Any] = {"init": init, "run": folder, "on_step": on_step}
        try:
            results.append(train(model, config.training(rate), data, validation, **arguments))
        except CheckpointError:  # the state left there is damaged, or of other settings or data
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


def _described(method: str, encoder: OpenClipEncoder, trained: bool) -> MethodWeights:
    """What a file of weights says of itself; what it does not say, or says wrongly, is left open."""
    path = find_weights(method, encoder.id)
    header = load_checkpoint(path, encoder, method).header
    data, training, metric = (
        value if isinstance(value, dict) else {} for value in (header.data, header.training, header.metric)
    )
    before = "shipped" if path == bundled_weights(method, encoder.id) else "prepared"
    tried = training.get("tried")
    return MethodWeights(
        path=path,
        origin="trained" if trained else before,
        corpus=str(data.get("corpus", "an unnamed corpus")),
        learning_rate=training.get("learning_rate"),
        tried=tuple(tried) if isinstance(tried, list) else (),
        epoch=metric.get("epoch"),
    )


def _results(corpus: Corpus, encoder: OpenClipEncoder, embeddings: CorpusEmbeddings) -> dict[str, Results]:
    results = {}
    for split in _SPLITS:
        if not any(clip.split == split for clip in corpus):
            continue
        data = pair_data(corpus.split(split), encoder, embeddings)
        scores = {name: load_method(name, encoder, data.frames).gallery.scores(data.texts) for name in SEARCH_METHODS}
        results[split] = {name: evaluate_scores(values, data.video_of) for name, values in scores.items()}
    return results


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)

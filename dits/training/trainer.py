"""Training a retrieval model on cached embeddings: the encoder is frozen, so an epoch takes seconds.

With `Projections` the cached values are features of the encoder's towers, and the encoder's projections are trained
together with the model.

All random draws of an epoch follow from the seed and the epoch's number, and the state is saved after every epoch. A
resumed run is therefore bit for bit the same as an uninterrupted one.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.common.errors import DitsError, InputError, require
from dits.common.files import sha256_of_json
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import Encoder
from dits.evaluation.metrics import evaluate_scores, mean_and_spread, selection_key
from dits.models.projections import Projections
from dits.models.retrieval import MAX_TEMPERATURE, ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.batches import batches, drawn_batches
from dits.training.config import TrainingConfig
from dits.training.devices import autocast, training_device
from dits.training.ignored_pairs import IgnoredPairs
from dits.training.optimisation import parameter_groups, set_learning_rates, trainable_parameters, warmup_cosine
from dits.training.state_file import damage_errors, read_state, with_prefix, write_state

Report = Callable[[str], None]

_STATE = "state.safetensors"
_HEADER = "dits-training"


@dataclass(frozen=True)
class PairData:
    """Embedded captions and their videos; for `Projections`, their features, whose two widths may differ.

    Attributes:
        texts: embeddings of the captions (N, d), or features (N, d_t).
        frames: embeddings of the videos' frames (V, F, d), or features (V, F, d_i).
        video_of: the video of each caption (N,).
        captions: the N captions. They identify equal captions, whose embeddings can differ in the last bits.
    """

    texts: Tensor
    frames: Tensor
    video_of: np.ndarray
    captions: tuple[str, ...]


@dataclass
class TrainingResult:
    """The outcome of a training, on the CPU.

    Attributes:
        model: the best model on the selection split.
        best: its record.
        history: the records of all validations, one per epoch.
        projections: the tuned projections that belong to the model; None if the encoder's own were used.
    """

    model: RetrievalModel
    best: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    projections: Projections | None = None


def pair_data(corpus: Corpus, encoder: Encoder, embeddings: CorpusEmbeddings) -> PairData:
    """Embeds every caption of the corpus, and joins it with the embeddings of its video."""
    texts = [encoder.encode_text(clip.captions) for clip in corpus]
    video_of = np.array([index for index, clip in enumerate(corpus) for _ in clip.captions])
    captions = tuple(caption for clip in corpus for caption in clip.captions)
    return PairData(torch.cat(texts), embeddings.select(corpus.ids).frames, video_of, captions)


EpochCallback = Callable[[dict[str, Any]], None]
StepCallback = Callable[[int, int], None]


def train(
    model_config: ModelConfig,
    config: TrainingConfig,
    data: PairData,
    validation: PairData | Sequence[PairData],
    *,
    init: RetrievalModel | None = None,
    run: Path | None = None,
    on_epoch: EpochCallback | None = None,
    on_step: StepCallback | None = None,
    projections: Projections | None = None,
    device: str = "cpu",
) -> TrainingResult:
    """Trains a model and returns it with the weights of the best epoch on `validation`, the config's selection split.

    With several data for validation, every metric is the mean over them.

    Best is the highest sum of the text-to-video recalls at 1, 5 and 10, then the lowest mean rank. The record of an
    epoch has these metrics, the mean loss and the temperature.

    Args:
        init: a trained model to start from: its pooling, its alignment if the method is the same, and its temperature
            if the configuration has the default one.
        run: a folder for the state after every epoch; a run in this folder is resumed.
        on_epoch: called with the record of every epoch.
        on_step: called with the number of finished steps and of all steps; both include earlier epochs of a resumed
            run.
        projections: train these too, on `data` and `validation` that hold features of the towers. They stay as they
            are: the result has the tuned ones.
        device: auto (the GPU if there is one), cpu or cuda.

    Raises:
        InputError: the method has nothing to train (`require_trainable`), a setting does not fit (the temperature is
            the encoder's own, or features are dropped without projections), the captions are of fewer than two videos,
            or there is no such device.
        CheckpointError: the state in `run` is damaged, or belongs to a run with another configuration.
        DitsError: the loss is not finite; the state of the last epoch stays saved.
    """
    torch.manual_seed(config.seed)
    model = RetrievalModel(model_config)
    require_trainable(model, config, projections is not None)
    if init is not None:
        start_from(model, init)
    _set_temperature(model, config, init)
    trainer = _Trainer(model, config, data, copy.deepcopy(projections), training_device(device))
    if run is not None:
        trainer.resume(run / _STATE)
    while not trainer.finished:
        loss = trainer.run_epoch(on_step)
        trainer.fit()
        metrics = validate(trainer.model, validation, trainer.projections)
        record = {"epoch": trainer.epoch, "loss": loss, "temperature": trainer.model.temperature, **metrics}
        trainer.record(record)
        if run is not None:
            trainer.save(run / _STATE)
        if on_epoch is not None:
            on_epoch(record)
    return trainer.result()


def require_trainable(model: RetrievalModel, config: TrainingConfig, projections: bool = False) -> None:
    """Checks that the model can be trained, or fitted, on cached embeddings, or with the encoder's projections.

    Raises:
        InputError: nothing but the temperature can be trained, or the objective has no gradient for any weight.
    """
    method = model.config.method
    trains = any(True for _ in model.alignment.parameters()) and (method != "dits" or model.config.sampler.steps > 0)
    require(
        projections or model.pooling is not None or trains or model.alignment.fitted,
        f"The method {method} has no weights to train on mean-pooled videos while the encoder is frozen: choose "
        "another method, or tune the encoder's projections (--tune-projections) or all of it (--joint).",
    )
    require(
        not projections or config.objective == "contrastive",
        "Projections train with the contrastive objective: they would collapse if they regressed onto themselves.",
    )
    require(
        projections or not config.feature_dropout,
        "The feature dropout is for the encoder's projections: tune them too (--tune-projections), or leave it out.",
    )
    require(
        config.objective == "contrastive" or trains,
        f"The method {method} has nothing that the objective {config.objective} could train.",
    )


@torch.no_grad()
def validate(
    model: RetrievalModel, data: PairData | Sequence[PairData], projections: Projections | None = None
) -> dict[str, dict[str, float]]:
    """Metrics of a model in both directions: means over several data, which hold features with `projections`."""
    model.eval()
    records = []
    for part in [data] if isinstance(data, PairData) else data:
        projected = _projected(part, projections)
        scores = build_gallery(model, projected.frames).scores(projected.texts)
        records.append({"all": evaluate_scores(scores, projected.video_of)})
    return mean_and_spread(records)[0]["all"]


class _Trainer:
    """A training run: model, projections, optimiser, epoch, the best weights so far, and the history."""

    def __init__(
        self,
        model: RetrievalModel,
        config: TrainingConfig,
        data: PairData,
        projections: Projections | None,
        device: torch.device,
    ) -> None:
        self.model, self.projections = model, projections
        self.config = config
        self.data = data
        self.device = device
        self.ignored = IgnoredPairs(data.captions, data.video_of, config.ignore)
        trained: dict[str, nn.Module] = {"model": model}
        if projections is not None:
            trained["projections"] = projections
        self.trained = nn.ModuleDict(trained)
        self.initial = [parameter.detach().clone() for parameter in self.trained.parameters()]
        self.trained.to(device)
        if config.objective != "contrastive":  # the other weights have no gradient, and must not decay
            model.requires_grad_(False)
            model.alignment.requires_grad_(True)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.optimizer = torch.optim.AdamW(self._groups())
        self.steps_per_epoch = sum(1 for _ in self._batches(1))
        if not self.steps_per_epoch:
            raise InputError("Training needs captions of at least two videos.")

    @property
    def finished(self) -> bool:
        since_best = self.epoch - self.best.get("epoch", 0)
        return self.epoch >= self.config.epochs or bool(self.config.patience and since_best >= self.config.patience)

    def run_epoch(self, on_step: StepCallback | None = None) -> float:
        """Trains for one pass over the captions of an epoch and returns the mean loss."""
        self.epoch += 1
        torch.manual_seed(_epoch_seed(self.config.seed, self.epoch))
        self.model.train()
        before, total = (self.epoch - 1) * self.steps_per_epoch, self.config.epochs * self.steps_per_epoch
        losses = []
        for index, rows in enumerate(self._batches(self.epoch)):
            losses.append(self._step(index, rows))
            if on_step is not None:
                on_step(before + index + 1, total)
        return float(np.mean(losses))

    @torch.no_grad()
    def fit(self) -> None:
        """Fits the parameters of the alignment that have a closed form, on all captions and their videos."""
        if self.model.alignment.fitted:
            self.model.eval()
            data = _projected(self.data, self.projections)
            texts, frames = (x.to(self.device) for x in (data.texts, data.frames[torch.from_numpy(data.video_of)]))
            self.model.alignment.fit(texts, self.model.own_videos(texts, frames))

    def record(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        if not self.best or selection_key(record) > selection_key(self.best):
            self.best = record
            self.best_weights = {name: value.cpu().clone() for name, value in self.trained.state_dict().items()}

    def result(self) -> TrainingResult:
        self.trained.load_state_dict(self.best_weights)
        self.trained.cpu().eval()
        return TrainingResult(self.model, self.best, self.history, self.projections)

    def save(self, path: Path) -> None:
        tensors = dict(self.trained.state_dict())
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        for name, parameter in trainable_parameters(self.trained):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        header = {"key": self._key, "epoch": self.epoch, "best": self.best, "history": self.history}
        write_state(path, _HEADER, header, tensors)

    def resume(self, path: Path) -> None:
        """Continues from the state in `path`, if there is one."""
        if not path.is_file():
            return
        with damage_errors(path, "it"):
            header, tensors = read_state(path, _HEADER, self._key, "another configuration or other data")
            self.trained.load_state_dict({name: tensors[name] for name in self.trained.state_dict()})
            self.best_weights = with_prefix(tensors, "best.")
            for name, parameter in trainable_parameters(self.trained):
                if f"optimizer.step.{name}" in tensors:  # a parameter that never had a gradient has no state
                    state = {k: tensors[f"optimizer.{k}.{name}"] for k in ("step", "exp_avg", "exp_avg_sq")}
                    self.optimizer.state[parameter] = {
                        k: value if k == "step" else value.to(self.device) for k, value in state.items()
                    }
            self.epoch, self.best, self.history = header["epoch"], header["best"], header["history"]

    def _step(self, index: int, rows: np.ndarray) -> float:
        done, total = (self.epoch - 1) * self.steps_per_epoch + index, self.config.epochs * self.steps_per_epoch
        set_learning_rates(self.optimizer.param_groups, warmup_cosine(done, total, self.config.warmup))
        loss = self._loss(rows)
        self._require_finite("loss", loss, index)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.clip_norm)
        self._require_finite("gradient", norm, index)
        self.optimizer.step()
        self.model.clamp_logit_scale()
        return loss.item()

    def _loss(self, rows: np.ndarray) -> Tensor:
        """The loss (scalar) of the pairs of captions (B,)."""
        c = self.config
        texts = self.data.texts[torch.from_numpy(rows)].to(self.device, torch.float32)
        frames = self.data.frames[torch.from_numpy(self.data.video_of[rows])].to(self.device, torch.float32)
        ignored = self.ignored.mask(rows)
        with autocast(self.device, c.precision):
            if self.projections is not None:
                features = (F.dropout(x, c.feature_dropout) if c.feature_dropout else x for x in (texts, frames))
                texts, frames = (x.float() for x in self.projections(*features))
            ignored = None if ignored is None else ignored.to(self.device)
            return self.model.loss(texts, frames, ignored, c.objective, c.alignment_weight)

    def _require_finite(self, name: str, value: Tensor, index: int) -> None:
        if not torch.isfinite(value):
            raise DitsError(
                f"The {name} is not finite at step {index + 1} of epoch {self.epoch}: lower the learning rate or the "
                "noise. The state of the previous epoch stays saved."
            )

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        c, video_of, seed = self.config, self.data.video_of, _epoch_seed(self.config.seed, epoch)
        if 0 < c.epoch_captions < len(video_of):
            return drawn_batches(video_of, c.batch_size, seed, c.epoch_captions)
        return batches(video_of, c.batch_size, seed)

    def _groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: the temperature, the rest of the model, and the projections."""
        c = self.config
        temperature = [([self.model.logit_scale], c.temperature_rate or c.clip_learning_rate)]
        rest = [parameter for name, parameter in self.model.named_parameters() if name != "logit_scale"]
        groups = [(rest, c.learning_rate)]
        if self.projections is not None:
            groups.append((list(self.projections.parameters()), c.projection_rate))
        decay = 0.0 if c.temperature_rate else c.weight_decay
        return parameter_groups(temperature, decay) + parameter_groups(groups, c.weight_decay)

    @cached_property
    def _key(self) -> dict[str, Any]:
        """What a resumed run must share with the run that it continues: configuration, data and initial weights."""
        digest = hashlib.sha256()
        for tensor in (*self.initial, self.data.texts, self.data.frames, torch.from_numpy(self.data.video_of)):
            digest.update(tensor.contiguous().numpy().data)
        digest.update(sha256_of_json(self.data.captions).encode())
        return {"model": self.model.config.as_dict(), "training": asdict(self.config), "data": digest.hexdigest()}


def start_from(model: RetrievalModel, init: RetrievalModel) -> None:
    """Copies from `init` the temperature, the pooling if both have one, and the alignment if the methods are equal.

    Raises:
        InputError: the weights do not fit the model.
    """
    try:
        if model.pooling is not None and init.pooling is not None:
            model.pooling.load_state_dict(init.pooling.state_dict())
        if model.config.method == init.config.method:
            model.alignment.load_state_dict(init.alignment.state_dict())
    except RuntimeError as error:
        raise InputError(
            "The weights to start from do not fit the model: use the same sizes and the same condition."
        ) from error
    with torch.no_grad():
        model.logit_scale.copy_(init.logit_scale)


def _set_temperature(model: RetrievalModel, config: TrainingConfig, init: RetrievalModel | None) -> None:
    """Sets the temperature of the configuration; its default keeps that of `init`."""
    require(config.temperature > 0, "A temperature of 0 is the encoder's own: give the value of `encoder.temperature`.")
    if init is None or config.temperature != MAX_TEMPERATURE:
        model.set_temperature(config.temperature)


def _projected(data: PairData, projections: Projections | None) -> PairData:
    """The embeddings of features, on the device of the projections; without projections the data itself."""
    if projections is None:
        return data
    device = projections.text.weight.device
    texts, frames = projections(*(x.to(device, torch.float32) for x in (data.texts, data.frames)))
    return replace(data, texts=texts, frames=frames)


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch

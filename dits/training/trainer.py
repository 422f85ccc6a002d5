"""Training a retrieval model on cached embeddings: the encoder is frozen, so an epoch takes seconds.

All random draws of an epoch follow from the seed and the epoch's number, and the state is saved after every epoch. A
resumed run is therefore bit for bit the same as an uninterrupted one.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dits.common.errors import DitsError, InputError, require
from dits.common.files import sha256_of_json
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import Encoder
from dits.evaluation.metrics import evaluate_scores, selection_key
from dits.models.alignment import require_choice
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.ignored_pairs import IgnoredPairs
from dits.training.optimisation import parameter_groups, set_learning_rates, trainable_parameters, warmup_cosine
from dits.training.state_file import damage_errors, read_state, with_prefix, write_state

Report = Callable[[str], None]

_STATE = "state.safetensors"
_HEADER = "dits-training"


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training. Defaults are those of the paper and its baselines (section 4.1; layer6ai-labs/xpool).

    Attributes:
        epochs: passes over all captions (5).
        batch_size: pairs in a batch (32). No two captions of a batch share a video, as they would be false negatives;
            the baselines do not ensure this.
        learning_rate: learning rate of the pooling and the sampler (3e-5 on MSR-VTT, 1e-5 elsewhere).
        clip_learning_rate: learning rate of CLIP's parameters, of which only the temperature trains here (1e-6 in the
            code of X-Pool and T-MASS; the paper prints 1e-5, probably a misprint).
        weight_decay: weight decay of AdamW, on all parameters (0.2).
        warmup: share of the steps with a linear warm-up, before half a cosine to zero (0.1).
        clip_norm: maximum norm of the gradients (1.0 in the baselines' code).
        patience: epochs without a better validation result before training stops; 0 never stops early.
        objective: contrastive (Equation 2), or l2 or l1 between the aligned text and its pooled video, without gradient
            (Equation 6 and Table 7); l2 and l1 do not train pooling and temperature.
        ignore: pairs of a batch that are not used as negatives: video (the text describes the other video), caption
            (the other video has the same caption, word for word), both, or none as in the baselines. If no batch
            holds a video twice, video has no effect.
        select_on: split on which the best epoch is chosen: validation, or test as in the baselines. The choice is
            recorded in the weights.
        seed: seed of initialisation, batches, dropout and noise (24).
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-5
    clip_learning_rate: float = 1e-6
    weight_decay: float = 0.2
    warmup: float = 0.1
    clip_norm: float = 1.0
    patience: int = 0
    objective: str = "contrastive"
    ignore: str = "both"
    select_on: str = "validation"
    seed: int = 24

    def __post_init__(self) -> None:
        require_choice("objective", self.objective, ("contrastive", "l2", "l1"))
        require_choice("ignore", self.ignore, ("none", "video", "caption", "both"))
        require_choice("split to select on", self.select_on, ("validation", "test"))
        require(
            self.epochs >= 1 and self.batch_size >= 2, "Training needs at least 1 epoch and a batch size of at least 2."
        )
        rates = (self.learning_rate, self.clip_learning_rate, self.weight_decay)
        require(min(rates) >= 0, "Learning rates and weight decay cannot be negative.")
        require(0 <= self.warmup < 1, f"The warm-up must be a share from 0 to below 1, not {self.warmup}.")
        require(self.clip_norm > 0 and self.patience >= 0, "The clipping norm must be above 0, the patience 0 or more.")
        require(0 <= self.seed < 2**31, f"The seed must be from 0 to {2**31 - 1}, not {self.seed}.")


@dataclass(frozen=True)
class PairData:
    """Embedded captions and their videos.

    Attributes:
        texts: embeddings of the captions (N, d).
        frames: embeddings of the videos' frames (V, F, d).
        video_of: the video of each caption (N,).
        captions: the N captions. They identify equal captions, whose embeddings can differ in the last bits.
    """

    texts: Tensor
    frames: Tensor
    video_of: np.ndarray
    captions: tuple[str, ...]


@dataclass
class TrainingResult:
    """The best model on the selection split, its record, and the records of all validations, one per epoch."""

    model: RetrievalModel
    best: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)


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
    validation: PairData,
    *,
    init: RetrievalModel | None = None,
    run: Path | None = None,
    on_epoch: EpochCallback | None = None,
    on_step: StepCallback | None = None,
) -> TrainingResult:
    """Trains a model and returns it with the weights of the best epoch on `validation`, the config's selection split.

    Best is the highest sum of the text-to-video recalls at 1, 5 and 10, then the lowest mean rank.

    Args:
        init: a trained model to start from: its pooling, and its alignment if the method is the same.
        run: a folder for the state after every epoch; a run in this folder is resumed.
        on_epoch: called with the record of every epoch.
        on_step: called with the number of finished steps and of all steps; both include earlier epochs of a resumed
            run.

    Raises:
        InputError: the method has nothing to train (`require_trainable`), or the captions are of fewer than two videos.
        CheckpointError: the state in `run` is damaged, or belongs to a run with another configuration.
        DitsError: the loss is not finite; the state of the last epoch stays saved.
    """
    torch.manual_seed(config.seed)
    model = RetrievalModel(model_config)
    require_trainable(model, config)
    if init is not None:
        start_from(model, init)
    trainer = _Trainer(model, config, data)
    if run is not None:
        trainer.resume(run / _STATE)
    while not trainer.finished:
        loss = trainer.run_epoch(on_step)
        _fit(trainer.model, data)
        record = {"epoch": trainer.epoch, "loss": loss, **validate(trainer.model, validation)}
        trainer.record(record)
        if run is not None:
            trainer.save(run / _STATE)
        if on_epoch is not None:
            on_epoch(record)
    trainer.model.load_state_dict(trainer.best_weights)
    return TrainingResult(trainer.model.eval(), trainer.best, trainer.history)


def require_trainable(model: RetrievalModel, config: TrainingConfig) -> None:
    """Checks that the model can be trained, or fitted, on cached embeddings.

    Raises:
        InputError: nothing but the temperature can be trained, or the objective has no gradient for any weight.
    """
    method = model.config.method
    trains = any(True for _ in model.alignment.parameters()) and (method != "dits" or model.config.sampler.steps > 0)
    require(
        model.pooling is not None or trains or model.alignment.fitted,
        f"The method {method} has no weights to train on mean-pooled videos while the encoder is frozen: choose "
        "another method, or tune the encoder too (--joint).",
    )
    require(
        config.objective == "contrastive" or trains,
        f"The method {method} has nothing that the objective {config.objective} could train.",
    )


def validate(model: RetrievalModel, data: PairData) -> dict[str, dict[str, float]]:
    """Metrics of a model on data, in both directions."""
    model.eval()
    return evaluate_scores(build_gallery(model, data.frames).scores(data.texts), data.video_of)


def batches(video_of: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """The batches of one epoch, as caption numbers: every caption once, and no video twice in a batch.

    The captions are divided into rounds that hold each video at most once. A round is split into batches of about the
    same size, at most `batch_size`. A single pair has no negatives: it joins another batch, and a round of one caption
    is left out.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(video_of))
    seen: dict[int, int] = {}
    rounds: dict[int, list[int]] = {}
    for caption in order:
        video = int(video_of[caption])
        seen[video] = seen.get(video, 0) + 1
        rounds.setdefault(seen[video], []).append(int(caption))
    for number in sorted(rounds):
        members = rounds[number]
        if len(members) > 1:
            count = min(math.ceil(len(members) / batch_size), len(members) // 2)
            yield from np.array_split(np.array(members), count)


class _Trainer:
    """A training run: model, optimiser, epoch, the best weights so far, and the history."""

    def __init__(self, model: RetrievalModel, config: TrainingConfig, data: PairData) -> None:
        self.model = model
        self.config = config
        self.data = data
        self.ignored = IgnoredPairs(data.captions, data.video_of, config.ignore)
        self.initial = [parameter.detach().clone() for parameter in model.parameters()]
        if config.objective != "contrastive":  # the other weights have no gradient, and must not decay
            model.requires_grad_(False)
            model.alignment.requires_grad_(True)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        rest = [parameter for name, parameter in model.named_parameters() if name != "logit_scale"]
        groups = (([model.logit_scale], config.clip_learning_rate), (rest, config.learning_rate))
        self.optimizer = torch.optim.AdamW(parameter_groups(groups, config.weight_decay))
        self.steps_per_epoch = sum(1 for _ in self._batches(1))
        if not self.steps_per_epoch:
            raise InputError("Training needs captions of at least two videos.")

    @property
    def finished(self) -> bool:
        since_best = self.epoch - self.best.get("epoch", 0)
        return self.epoch >= self.config.epochs or bool(self.config.patience and since_best >= self.config.patience)

    def run_epoch(self, on_step: StepCallback | None = None) -> float:
        """Trains for one pass over all captions and returns the mean loss."""
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

    def record(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        if not self.best or selection_key(record) > selection_key(self.best):
            self.best = record
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        for name, parameter in trainable_parameters(self.model):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        header = {"key": self._key(), "epoch": self.epoch, "best": self.best, "history": self.history}
        write_state(path, _HEADER, header, tensors)

    def resume(self, path: Path) -> None:
        """Continues from the state in `path`, if there is one."""
        if not path.is_file():
            return
        with damage_errors(path, "it"):
            header, tensors = read_state(path, _HEADER, self._key(), "another configuration or other data")
            self.model.load_state_dict(with_prefix(tensors, "model."))
            self.best_weights = with_prefix(tensors, "best.")
            for name, parameter in trainable_parameters(self.model):
                if f"optimizer.step.{name}" in tensors:  # a parameter that never had a gradient has no state
                    state = {k: tensors[f"optimizer.{k}.{name}"] for k in ("step", "exp_avg", "exp_avg_sq")}
                    self.optimizer.state[parameter] = state
            self.epoch, self.best, self.history = header["epoch"], header["best"], header["history"]

    def _step(self, index: int, rows: np.ndarray) -> float:
        done, total = (self.epoch - 1) * self.steps_per_epoch + index, self.config.epochs * self.steps_per_epoch
        set_learning_rates(self.optimizer.param_groups, warmup_cosine(done, total, self.config.warmup))
        texts = self.data.texts[torch.from_numpy(rows)]
        frames = self.data.frames[torch.from_numpy(self.data.video_of[rows])]
        loss = self.model.loss(texts, frames, self.ignored.mask(rows), self.config.objective)
        self._require_finite("loss", loss, index)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._require_finite("gradient", norm, index)
        self.optimizer.step()
        self.model.clamp_logit_scale()
        return loss.item()

    def _require_finite(self, name: str, value: Tensor, index: int) -> None:
        if not torch.isfinite(value):
            raise DitsError(
                f"The {name} is not finite at step {index + 1} of epoch {self.epoch}: lower the learning rate or the "
                "noise. The state of the previous epoch stays saved."
            )

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        return batches(self.data.video_of, self.config.batch_size, _epoch_seed(self.config.seed, epoch))

    def _key(self) -> dict[str, Any]:
        """What a resumed run must share with the run that it continues: configuration, data and initial weights."""
        digest = hashlib.sha256()
        for tensor in (*self.initial, self.data.texts, self.data.frames, torch.from_numpy(self.data.video_of)):
            digest.update(tensor.contiguous().numpy().tobytes())
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


@torch.no_grad()
def _fit(model: RetrievalModel, data: PairData) -> None:
    """Fits the parameters of the alignment that have a closed form, on all captions and their videos."""
    if model.alignment.fitted:
        model.eval()
        model.alignment.fit(data.texts, model.own_videos(data.texts, data.frames[torch.from_numpy(data.video_of)]))


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch

"""Training a retrieval model on cached embeddings: the encoder is frozen, so an epoch takes seconds.

Every epoch draws its randomness from the seed and its own number, and the state after every epoch is kept as
safetensors; a resumed run is therefore bit for bit the undisturbed one.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dits.common.errors import CheckpointError, DitsError, InputError, require
from dits.common.files import atomic_path, parse_json, sha256_of_json
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings
from dits.encoders.openclip import Encoder
from dits.evaluation.metrics import evaluate_scores, selection_key
from dits.models.alignment import one_of
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.ignored_pairs import IgnoredPairs
from dits.training.optimisation import parameter_groups, set_learning_rates, warmup_cosine

_STATE = "state.safetensors"
_HEADER = "dits-training"


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained. Defaults are the paper's and its baselines' (section 4.1; layer6ai-labs/xpool).

    Attributes:
        epochs: passes over all captions (5).
        batch_size: pairs in a batch (32). A batch holds no two captions of one video, which would be each other's
            false negatives; the baselines do not take care of that.
        learning_rate: of the pooling and the sampler (3e-5 on MSR-VTT, 1e-5 elsewhere).
        clip_learning_rate: of CLIP's own parameters, of which only the temperature trains here (1e-6 in X-Pool's
            and T-MASS's code; 1e-5 as printed in the paper, probably a misprint).
        weight_decay: of AdamW, on every parameter (0.2).
        warmup: share of all steps in which the rate rises linearly, before a half cosine to zero (0.1).
        clip_norm: gradients are clipped to this norm (1.0 in the baselines' code).
        patience: epochs without a better validation result before training stops; 0 never stops early.
        objective: "contrastive" (Equation 2), or "l2" or "l1" on the aligned text with its video fixed (Equation 6 and
            Table 7), which leave pooling and temperature as they are.
        ignore: pairs of a batch's text and another pair's video that are no negatives: video, where it is the text's
            own video; caption, where it is another video that has the same caption word for word; both; or none, as
            the baselines. Where no batch holds a video twice, only captions that several videos share are left.
        select_on: the split whose best result is kept: validation; or test, as the baselines do, which is written
            into the weights.
        seed: of initialisation, batches, dropout and noise (24).
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
        one_of("objective", self.objective, ("contrastive", "l2", "l1"))
        one_of("ignore", self.ignore, ("none", "video", "caption", "both"))
        one_of("split to select on", self.select_on, ("validation", "test"))
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
    """Captions with their videos, embedded.

    Attributes:
        texts: the captions' embeddings (N, d).
        frames: the videos' (V, F, d).
        video_of: each caption's video (N,).
        captions: the N captions themselves, which tell equal ones; embeddings of theirs can differ in the last bits.
    """

    texts: Tensor
    frames: Tensor
    video_of: np.ndarray
    captions: tuple[str, ...]


@dataclass
class TrainingResult:
    """The model with the best result on the split that selects, that result, and one record per epoch."""

    model: RetrievalModel
    best: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)


def pair_data(corpus: Corpus, encoder: Encoder, embeddings: CorpusEmbeddings) -> PairData:
    """Every caption of the corpus with its video, embedded."""
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
    """Trains a model and keeps the epoch with the best result on `validation`, the split that the config selects on.

    Best is the highest sum of the text-to-video recalls at 1, 5 and 10, then the lowest mean rank.

    Args:
        init: a trained model whose pooling (and alignment, if it is of the same method) training starts from.
        run: a folder for the state after every epoch; a run found there is resumed.
        on_epoch: told every epoch's record.
        on_step: told how many steps of how many are done, those of a resumed run's earlier epochs included.

    Raises:
        InputError: the method has nothing to train (`require_trainable`), or the captions are of fewer than two videos.
        CheckpointError: the state in `run` is damaged or of a run with another configuration.
        DitsError: the loss is no number; the state of the last epoch is kept.
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
    """Nothing, where cached embeddings can train the model, by its weights or by what it fits.

    Raises:
        InputError: the method has nothing but the temperature, or nothing that the objective reaches.
    """
    method = model.config.method
    moves = any(True for _ in model.alignment.parameters()) and (method != "dits" or model.config.sampler.steps > 0)
    require(
        model.pooling is not None or moves or model.alignment.fitted,
        f"The method {method} has no weights to train on mean-pooled videos while the encoder is frozen: choose "
        "another method, or tune the encoder too (--joint).",
    )
    require(
        config.objective == "contrastive" or moves,
        f"The method {method} has nothing that the objective {config.objective} could train.",
    )


def validate(model: RetrievalModel, data: PairData) -> dict[str, dict[str, float]]:
    """Both directions' metrics of a model on data."""
    model.eval()
    return evaluate_scores(build_gallery(model, data.frames).scores(data.texts), data.video_of)


def batches(video_of: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """One epoch's batches of caption numbers: every caption once, and no video twice in a batch.

    The captions are dealt into rounds that hold each video at most once; a round is cut into near-equal batches of
    `batch_size` or less. A pair alone has no negatives: it joins another batch, and a round of one video is left out.
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
    """The state of a training run: model, optimiser, epoch, the best weights so far, and the history."""

    def __init__(self, model: RetrievalModel, config: TrainingConfig, data: PairData) -> None:
        self.model = model
        self.config = config
        self.data = data
        self.ignored = IgnoredPairs(data.captions, data.video_of, config.ignore)
        self.start = [parameter.detach().clone() for parameter in model.parameters()]
        if config.objective != "contrastive":  # what the objective does not reach must not decay either
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
        waited = self.epoch - self.best.get("epoch", 0)
        return self.epoch >= self.config.epochs or bool(self.config.patience and waited >= self.config.patience)

    def run_epoch(self, on_step: StepCallback | None = None) -> float:
        """One pass over all captions; the mean loss."""
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
        for name, parameter in self._trained():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        header = {"key": self._key(), "epoch": self.epoch, "best": self.best, "history": self.history}
        with atomic_path(path) as temporary:
            cloned = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
            save_file(cloned, temporary, metadata={_HEADER: json.dumps(header)})

    def resume(self, path: Path) -> None:
        """Goes on from the state in `path`, where there is one."""
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                header = parse_json((file.metadata() or {})[_HEADER])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            if header["key"] != self._key():
                raise CheckpointError(
                    f"{path.parent} holds a run with another configuration or other data: choose another folder."
                )
            self.model.load_state_dict(_with_prefix(tensors, "model."))
            self.best_weights = _with_prefix(tensors, "best.")
            for name, parameter in self._trained():
                if f"optimizer.step.{name}" in tensors:  # not of what the loss never reached
                    state = {k: tensors[f"optimizer.{k}.{name}"] for k in ("step", "exp_avg", "exp_avg_sq")}
                    self.optimizer.state[parameter] = state
            self.epoch, self.best, self.history = header["epoch"], header["best"], header["history"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"The training state in {path} is damaged: remove it to start anew.") from error

    def _step(self, index: int, rows: np.ndarray) -> float:
        self._set_learning_rates((self.epoch - 1) * self.steps_per_epoch + index)
        texts = self.data.texts[torch.from_numpy(rows)]
        frames = self.data.frames[torch.from_numpy(self.data.video_of[rows])]
        loss = self.model.loss(texts, frames, self.ignored.of(rows), self.config.objective)
        if not torch.isfinite(loss):
            raise DitsError(
                f"The loss is no number at step {index + 1} of epoch {self.epoch}: lower the learning rate or the "
                "noise. The state of the epoch before is kept."
            )
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        if not torch.isfinite(norm):
            raise DitsError(
                f"The gradient is no number at step {index + 1} of epoch {self.epoch}: lower the learning rate or the "
                "noise. The state of the epoch before is kept."
            )
        self.optimizer.step()
        self.model.clamp_logit_scale()
        return loss.item()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def _set_learning_rates(self, step: int) -> None:
        factor = warmup_cosine(step, self.config.epochs * self.steps_per_epoch, self.config.warmup)
        set_learning_rates(self.optimizer.param_groups, factor)

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        return batches(self.data.video_of, self.config.batch_size, _epoch_seed(self.config.seed, epoch))

    def _key(self) -> dict[str, Any]:
        """What a resumed run must share with the one it continues: configuration, data and initial weights."""
        digest = hashlib.sha256()
        for tensor in (*self.start, self.data.texts, self.data.frames, torch.from_numpy(self.data.video_of)):
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(sha256_of_json(self.data.captions).encode())
        return {"model": self.model.config.as_dict(), "training": asdict(self.config), "data": digest.hexdigest()}


def start_from(model: RetrievalModel, init: RetrievalModel) -> None:
    """Takes over the pooling where both have one, the alignment where both have the same, and the temperature.

    Raises:
        InputError: the weights are of another size or condition than the model.
    """
    try:
        if model.pooling is not None and init.pooling is not None:
            model.pooling.load_state_dict(init.pooling.state_dict())
        if model.config.method == init.config.method:
            model.alignment.load_state_dict(init.alignment.state_dict())
    except RuntimeError as error:
        raise InputError("The weights to start from are of another size or condition than the model.") from error
    with torch.no_grad():
        model.logit_scale.copy_(init.logit_scale)


@torch.no_grad()
def _fit(model: RetrievalModel, data: PairData) -> None:
    """Sets what the alignment fits by arithmetic, from all captions and their videos."""
    if model.alignment.fitted:
        model.eval()
        model.alignment.fit(data.texts, model.own_videos(data.texts, data.frames[torch.from_numpy(data.video_of)]))


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

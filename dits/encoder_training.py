"""Training the bundled encoder on pairs: projections by regression, then a contrastive loss on both towers.

The pairs come from shards (dits.pairs), the towers' pretrained weights from two packages (dits.towers). A ridge
regression between the frozen towers sets the projections; the contrastive loss then tunes projections and towers, each
as deep as the configuration says, weights averaged along the way, stopped on the validation split.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.corpus import Corpus
from dits.encoder_data import (
    CLASSES,
    DRAWINGS,
    PHOTOS,
    Captioned,
    ClassPrototypes,
    TrainingPairs,
    load_pairs,
    pair_features,
    validation_clips,
)
from dits.encoder_state import EncoderState
from dits.errors import DitsError, InputError, require
from dits.evaluation import evaluate_scores, selection_key
from dits.files import ASSETS, sha256_of, write_json
from dits.losses import sigmoid_loss, symmetric_cross_entropy
from dits.pairs.shards import INDEX
from dits.pairs.sources import SOURCES
from dits.pictures import Augmentation, normalise, plain_view
from dits.pooling import mean_pool
from dits.towers import image_stages, pretrained_model, write_model
from dits.training import warmup_cosine

Report = Callable[[str], None]

RECIPE = ASSETS / "recipes" / "encoder-cpu.toml"

_TARGET_NORM = 10.0  # about what CLIP's projected embeddings have; the sampler's noise schedule meets magnitudes
_STATE = "encoder-state.safetensors"


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """How the bundled encoder is trained; chosen on the validation split.

    Attributes:
        sources: names of sources of pairs, separated by commas; "classes" are the image tower's ImageNet classes.
        crops: random views of every picture that frozen features are kept of, besides the plain one.
        balance: from 0 (every pair is drawn equally often) to 1 (every source is).
        ridge: strength of the ridge regression that sets the projections.
        drawing_weight: weight of a drawing against a photograph, in regression and loss.
        class_weight: weight of an ImageNet class against a photograph, in regression and loss.
        steps: optimiser steps, at most.
        validate_every: steps between validations, and between states written for resuming.
        patience: validations without a better result before training stops; 0 never stops.
        warmup: share of the steps over which rates rise; then they fall along half a cosine.
        projection_rate: learning rate of the projections.
        text_rate: learning rate of the text tower.
        text_layers: layers of the text tower that are tuned, from the last; 0 leaves it frozen.
        image_rate: learning rate of the image tower.
        image_stages: stages of the image tower that are tuned, from the last; 0 leaves it frozen, 9 tunes all.
        photographs: photographs and clips in a batch.
        drawings: drawings in a batch.
        classes: ImageNet classes in a batch.
        word_dropout: share of a text's words that are left out at random.
        dropout: of the image tower's features before their projection; half of it of the text tower's.
        loss: softmax (symmetric cross-entropy) or sigmoid (of every pair of a batch on its own).
        temperature: factor on cosines; the sigmoid loss learns its own from there.
        averaging: decay of the moving average of the weights, which is what is validated and kept; 0 averages nothing.
        precision: fp32 or bf16 (autocast).
        device: auto, cpu or cuda.
        seed: of everything random.
    """

    sources: str = "demo,left-out,templates,wallpapers,stamps,clipart,emoji,words,classes"
    crops: int = 2
    balance: float = 0.5
    ridge: float = 10.0
    drawing_weight: float = 0.1
    class_weight: float = 0.5
    steps: int = 400
    validate_every: int = 20
    patience: int = 0
    warmup: float = 0.1
    projection_rate: float = 3e-4
    text_rate: float = 2e-5
    text_layers: int = 6
    image_rate: float = 1e-5
    image_stages: int = 0
    photographs: int = 192
    drawings: int = 64
    classes: int = 64
    word_dropout: float = 0.1
    dropout: float = 0.6
    loss: str = "softmax"
    temperature: float = 20.0
    averaging: float = 0.95
    precision: str = "fp32"
    device: str = "auto"
    seed: int = 24

    def __post_init__(self) -> None:
        counts = (self.crops, self.steps, self.patience, self.seed, self.text_layers, self.drawings, self.classes)
        require(min(counts) >= 0 and self.validate_every >= 1, "Counts and the seed cannot be negative.")
        require(self.photographs >= 2, "A batch needs at least two photographs.")
        require(self.ridge > 0 and self.temperature > 0, "The ridge and the temperature must be above 0.")
        rates = (self.projection_rate, self.text_rate, self.image_rate, self.drawing_weight, self.class_weight)
        require(min(rates) >= 0, "Learning rates and weights cannot be negative.")
        require(self.classes <= 1000, f"There are 1,000 classes to draw from, not {self.classes}.")
        shares = (self.dropout, self.word_dropout, self.averaging, self.warmup)
        require(all(0 <= share < 1 for share in shares), "Dropout, averaging and warm-up are from 0 to below 1.")
        require(0 <= self.balance <= 1, f"The balance is from 0 to 1, not {self.balance}.")
        require(0 <= self.image_stages <= 9, f"The image tower has 9 stages to tune, not {self.image_stages}.")
        for name, choices in (
            ("loss", ("softmax", "sigmoid")), ("precision", ("fp32", "bf16")), ("device", ("auto", "cpu", "cuda")),
        ):  # fmt: skip
            require(getattr(self, name) in choices, f"The {name} is one of {', '.join(choices)}.")
        known = (*SOURCES, CLASSES)
        unknown = [name for name in self.source_names if name not in known]
        require(not unknown, f"There is no source '{', '.join(unknown)}': choose from {', '.join(known)}.")
        require(any(name in PHOTOS for name in self.source_names), "Training needs a source of photographs or clips.")

    @property
    def source_names(self) -> tuple[str, ...]:
        """The sources, as a tuple."""
        return tuple(name.strip() for name in self.sources.split(",") if name.strip())


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe, a TOML file of the configuration's fields.

    Raises:
        InputError: it cannot be read, or names what is no setting or has the wrong type.
    """
    import tomllib

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the recipe {path}: {str(error).lower()}.") from error
    types: dict[str, Any] = {field.name: field.type for field in fields(EncoderTrainingConfig)}
    for name, value in settings.items():
        require(name in types, f"{path} sets '{name}', which is no setting: choose from {', '.join(types)}.")
        fits = isinstance(value, (int, float) if types[name] is float else types[name]) and not isinstance(value, bool)
        require(fits, f"{path}: {name} must be of type {types[name].__name__}, not {value!r}.")
    return settings


def train_encoder(
    corpus: Corpus, pairs: Path, folder: Path, config: EncoderTrainingConfig, report: Report, run: Path | None = None
) -> dict[str, Any]:
    """Trains the bundled encoder and writes it to `folder` in OpenCLIP's format. Returns the summary it writes too.

    Args:
        corpus: its validation split selects the step that is kept.
        pairs: the folder of shards to train on.
        folder: where the encoder goes.
        config: everything that can be chosen.
        report: told every line of progress.
        run: a folder for the state at every validation; a run found there is resumed.

    Raises:
        EncoderError: a package with pretrained weights is missing.
        PairsError: the shards are missing, damaged, or lack a source.
        VideoError: a clip cannot be decoded.
        CheckpointError: the state in `run` is damaged or of another run.
        StorageError: the folder cannot be written.
        DitsError: the loss is no number; the state of the last validation is kept.
    """
    torch.manual_seed(config.seed)
    loaded = load_pairs(pairs, config.source_names)
    model, classifier = pretrained_model(folder)
    trunk: Any = model.visual.trunk.to(memory_format=torch.channels_last)  # type: ignore[union-attr]

    def progress(done: int, total: int) -> None:
        if done == total or done // 32 % 30 == 0:
            report(f"Pictures through the pretrained image tower: {done}/{total}")

    features = pair_features(trunk, loaded, config.crops, config.seed, progress)
    data = TrainingPairs(loaded, features, config.balance)
    validation = validation_clips(trunk, corpus.split("validation"), progress)
    trainer = _EncoderTrainer(model, folder, classifier, data, validation, config)
    floor = kernel_ridge_floor(*trainer.frozen_training_features(), *trainer.frozen_validation_features())
    report(f"Kernel ridge map between the frozen towers: {_line(floor)}")
    best = trainer.run(report, run / _STATE if run else None, {"pairs": sha256_of(pairs / INDEX)})
    write_model(model.cpu(), folder)
    summary = {
        "config": asdict(config),
        "pairs": {name: int((data.sources == name).sum()) for name in config.source_names if name != CLASSES},
        "validation": best,
        "kernel_ridge": floor,
    }
    write_json(folder / "training.json", summary)
    return summary


def kernel_ridge_floor(
    train_texts: Tensor, train_images: Tensor, train_clip_of: np.ndarray,
    texts: Tensor, images: Tensor, clip_of: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """The floor: kernel ridge regression from frozen text features to frozen image features, and the reverse.

    The better of both directions and of a grid of settings, on the very data it is judged on: a generous floor.
    Texts are (N, 384), images (V, 1280), one per clip.
    """
    from sklearn.kernel_ridge import KernelRidge

    unit = [F.normalize(x, dim=-1).numpy() for x in (train_texts, train_images, texts, images)]
    t, v, test_t, test_v = unit[0], unit[1][train_clip_of], unit[2], unit[3]
    mean_t, mean_v = t.mean(axis=0), unit[1].mean(axis=0)
    results = []
    for gamma in (0.25, 0.5, 1.0, 2.0, 4.0):
        for alpha in (0.03, 0.1, 0.3, 1.0, 3.0):
            forward = KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma).fit(t, v - mean_v)
            backward = KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma).fit(v, t - mean_t)
            for a, b in (
                (forward.predict(test_t), test_v - mean_v),
                (test_t - mean_t, backward.predict(test_v)),
            ):
                scores = F.normalize(torch.tensor(a), dim=-1) @ F.normalize(torch.tensor(b), dim=-1).T
                results.append(evaluate_scores(scores, clip_of))
    return max(results, key=lambda result: result["t2v"]["R@1"])


class _EncoderTrainer:
    """The model in training: what is tuned, its moving average, and the validation of that average."""

    def __init__(
        self, model: nn.Module, folder: Path, classifier: Tensor, data: TrainingPairs, validation: Captioned,
        config: EncoderTrainingConfig,
    ) -> None:  # fmt: skip
        import open_clip

        wanted = config.device if config.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        require(wanted != "cuda" or torch.cuda.is_available(), "There is no CUDA device here: train on the CPU.")
        self.device = torch.device(wanted)
        self.model: Any = model.to(self.device)
        self.config, self.data, self.validation = config, data, validation
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.photo_rows = data.members(PHOTOS)
        clips = data.mean_features(self.photo_rows)
        self.classes = ClassPrototypes.of(classifier, clips)
        self._clips = clips
        backdrops = [data.pictures[data.starts[row]] for row in self.photo_rows]
        self.augment = Augmentation(backdrops, config.seed)

    # --- The towers before their projections ---

    def frozen_training_features(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """Text features (N, 384) and picture features (P, 1280) of the photographs, and each text's picture."""
        texts = [(text, n) for n, row in enumerate(self.photo_rows) for text in self.data.texts[row]]
        return self._text_features([text for text, _ in texts]), self._clips, np.array([n for _, n in texts])

    def frozen_validation_features(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """The same of the validation clips: (N, 384), (V, 1280), and each text's clip."""
        clips = self.validation.features.mean(dim=1)
        return self._text_features(self.validation.captions), clips, self.validation.clip_of

    def _text_tower(self, texts: list[str]) -> Tensor:
        tokens = self.tokenize(texts).to(self.device)
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        mask = (tokens != 0).long()
        return self.model.text.pooler(self.model.text.transformer(input_ids=tokens, attention_mask=mask), mask)

    @torch.no_grad()
    def _text_features(self, texts: list[str]) -> Tensor:
        return torch.cat([self._text_tower(texts[i : i + 64]).float().cpu() for i in range(0, len(texts), 64)])

    def _image_tower(self, views: Tensor) -> Tensor:
        images = normalise(views.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.model.visual.trunk(images)

    # --- The projections ---

    def set_projections(self) -> None:
        """The text projection is a random isometry; the image projection regresses images onto their sentences.

        Both are centred on the photographs and their captions, which spares the space hubs. Drawings and classes have
        centres of their own in the regression: it learns what tells them apart from each other, not from photographs.
        """
        c = self.config
        text, image = self.model.text.proj, self.model.visual.head.proj
        isometry = torch.linalg.qr(torch.randn(text.out_features, text.in_features))[0]
        captions, clips, clip_of = self.frozen_training_features()
        parts = [(clips[clip_of], captions, 1.0)]
        drawings = self.data.members(DRAWINGS)
        if len(drawings):
            names = self._text_features([self.data.texts[row][-1] for row in drawings])
            parts.append((self.data.mean_features(drawings), names, c.drawing_weight))
        if CLASSES in c.source_names:
            parts += [
                (self.classes.rows, self._text_features(list(names)), c.class_weight)
                for names in zip(*self.classes.texts, strict=True)
            ]
        x = torch.cat([features - features.mean(dim=0) for features, _, _ in parts]) / clips.norm(dim=-1).mean()
        y = torch.cat([texts - texts.mean(dim=0) for _, texts, _ in parts]) / captions.norm(dim=-1).mean()
        weights = torch.cat([torch.full((len(features),), weight) for features, _, weight in parts])
        solution = isometry @ weighted_ridge(x, y, weights, c.ridge).T
        with torch.no_grad():
            text.weight.copy_(isometry)
            self.model.text.transformer.encoder.layer[-1].output.LayerNorm.bias.sub_(captions.mean(dim=0))
            image.weight.copy_(solution)
            image.bias.copy_(-solution @ clips.mean(dim=0))
        self.set_scale()

    def set_scale(self) -> None:
        """Scales both projections so that embeddings have the norm that CLIP's have."""
        captions = self._text_features(self.validation.captions).to(self.device)
        clips = self._validation_features().mean(dim=1)
        with torch.no_grad():
            for layer, features in ((self.model.text.proj, captions), (self.model.visual.head.proj, clips)):
                factor = _TARGET_NORM / layer(features).norm(dim=-1).mean()
                for parameter in layer.parameters():
                    parameter.mul_(factor)

    # --- Training ---

    def run(self, report: Report, path: Path | None, key: dict[str, Any]) -> dict[str, Any]:
        """Sets the projections, tunes, and leaves the best validated average in the model. Returns its record."""
        c = self.config
        self.set_projections()
        state = EncoderState(self.model, self._parameters(), c.averaging, {"config": asdict(c), **key})
        if path is not None and state.resume(path):
            report(f"Going on after step {state.step} of the run in {path.parent}.")
        else:
            state.record({"step": 0, **self._validate()}, selection_key)
            report(f"Ridge regression: {_line(state.best)}")
        while state.step < c.steps and not self._waited_enough(state):
            loss = self._step(state)
            if state.step % c.validate_every == 0 or state.step == c.steps:
                with state.averaged():
                    record = {"step": state.step, "loss": loss, **self._validate()}
                state.record(record, selection_key)
                report(f"Step {state.step}: loss {loss:.3f}, {_line(record)}")
                if path is not None:
                    state.save(path)
        state.load_best()
        self.set_scale()
        return state.best

    def _waited_enough(self, state: EncoderState) -> bool:
        patience = self.config.patience * self.config.validate_every
        return bool(patience) and state.step - state.best["step"] >= patience

    def _parameters(self) -> list[tuple[dict[str, nn.Parameter], float]]:
        """Groups of what is tuned, with their learning rates."""
        c = self.config
        self.model.requires_grad_(False)
        modules: dict[float, list[nn.Module]] = {c.projection_rate: [self.model.text.proj, self.model.visual.head.proj]}
        transformer = self.model.text.transformer
        layers = list(transformer.encoder.layer)
        if c.text_layers >= len(layers):
            modules.setdefault(c.text_rate, []).append(transformer)
        elif c.text_layers:
            modules.setdefault(c.text_rate, []).extend(layers[-c.text_layers :])
        if c.image_stages:
            stages = image_stages(self.model.visual.trunk)[-c.image_stages :]
            modules.setdefault(c.image_rate, []).extend(module for stage in stages for module in stage)
        chosen = {id(p): rate for rate, group in modules.items() for module in group for p in module.parameters()}
        named = [(name, p) for name, p in self.model.named_parameters() if id(p) in chosen and chosen[id(p)] > 0]
        if c.loss == "sigmoid":
            self.model.logit_bias = nn.Parameter(torch.tensor(-c.temperature / 2, device=self.device))
            self.model.logit_scale.data.fill_(math.log(c.temperature))
            named += [("logit_bias", self.model.logit_bias), ("logit_scale", self.model.logit_scale)]
            chosen |= {id(p): 1e-2 for _, p in named[-2:]}
        for _, parameter in named:
            parameter.requires_grad_(True)
        rates = sorted({chosen[id(p)] for _, p in named})
        return [({name: p for name, p in named if chosen[id(p)] == rate}, rate) for rate in rates]

    def _step(self, state: EncoderState) -> float:
        c = self.config
        rng = np.random.default_rng((c.seed, state.step))
        torch.manual_seed(c.seed * 100_003 + state.step)
        self.augment.rng = rng
        parts = [(PHOTOS, c.photographs, 1.0), (DRAWINGS, c.drawings, c.drawing_weight)]
        state.optimizer.zero_grad()
        total = 0.0
        for sources, size, weight in parts:
            rows = self.data.draw([s for s in sources if s in c.source_names], size, rng)
            if len(rows) > 1 and weight:
                texts = self.data.draw_texts(rows, c.word_dropout, rng)
                total += self._backward(texts, self._picture_features(rows, rng), weight)
        if c.classes and CLASSES in c.source_names and c.class_weight:
            drawn = rng.choice(len(self.classes.texts), size=c.classes, replace=False)
            names = [self.classes.texts[i][rng.integers(2)] for i in drawn]
            total += self._backward(names, lambda: self.classes.rows[torch.from_numpy(drawn)], c.class_weight)
        if not math.isfinite(total):
            raise DitsError(
                f"The loss is no number at step {state.step + 1}: lower the learning rates. "
                "The state of the last validation is kept."
            )
        state.update(warmup_cosine(state.step, c.steps, c.warmup))
        return total

    def _picture_features(self, rows: np.ndarray, rng: np.random.Generator) -> Callable[[], Tensor]:
        """Makes the features of one draw: kept ones for a frozen tower, fresh views through a tuned one."""
        if not self.config.image_stages:
            features = self.data.draw_features(rows, rng)
            return lambda: features
        views = torch.stack([self.augment(self.data.pictures[n]) for n in self.data.draw_pictures(rows, rng)])
        return lambda: self._image_tower(views)

    def _backward(self, texts: list[str], features: Callable[[], Tensor], weight: float) -> float:
        c = self.config
        with self._autocast():
            text = self.model.text.proj(F.dropout(self._text_tower(texts), c.dropout / 2))
            image = self.model.visual.head.proj(F.dropout(features().to(self.device), c.dropout))
        cosines = F.normalize(text.float(), dim=-1) @ F.normalize(image.float(), dim=-1).T
        if c.loss == "sigmoid":
            loss = sigmoid_loss(cosines, self.model.logit_scale, self.model.logit_bias)
        else:
            loss = symmetric_cross_entropy(cosines, torch.tensor(math.log(c.temperature), device=self.device))
        (weight * loss).backward()
        return weight * loss.item()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    # --- Validation ---

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        texts = self.model.text.proj(self._text_features(self.validation.captions).to(self.device))
        videos = mean_pool(self.model.visual.head.proj(self._validation_features()))
        return evaluate_scores((F.normalize(texts, dim=-1) @ videos.T).cpu(), self.validation.clip_of)

    @torch.no_grad()
    def _validation_features(self) -> Tensor:
        """Features (V, FRAMES, 1280): kept ones for a frozen tower, computed anew for a tuned one."""
        if not self.config.image_stages:
            return self.validation.features.to(self.device)
        views = torch.stack([plain_view(data) for data in self.validation.pictures])
        features = torch.cat([self._image_tower(views[i : i + 32]).float() for i in range(0, len(views), 32)])
        return features.view(self.validation.features.shape)


def weighted_ridge(x: Tensor, y: Tensor, weights: Tensor, strength: float) -> Tensor:
    """argmin_B sum_n w_n |y_n - x_n B|^2 + strength |B|^2, in float64."""
    x64, y64, w64 = x.double(), y.double(), weights.double()[:, None]
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(x64.T @ (w64 * x64) + strength * eye, x64.T @ (w64 * y64)).float()


def _line(record: dict[str, Any]) -> str:
    t2v, v2t = record["t2v"], record["v2t"]
    return (
        f"validation text-to-video R@1 {t2v['R@1']:.1f}, R@5 {t2v['R@5']:.1f}, R@10 {t2v['R@10']:.1f}, "
        f"MnR {t2v['MnR']:.2f}, video-to-text R@1 {v2t['R@1']:.1f}"
    )

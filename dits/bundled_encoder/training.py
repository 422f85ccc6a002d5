"""Training the bundled encoder on pairs: projections by regression, then a contrastive loss on both towers.

The pairs come from shards (dits.bundled_encoder.pairs), the towers' pretrained weights from two packages
(dits.encoders.towers). A ridge regression between the frozen towers sets the projections. A contrastive loss then
tunes the projections and the configured layers of the towers, with a moving average of the weights, of which the best
on the validation split is written.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dits.bundled_encoder.config import CLASSES, DRAWINGS, PHOTO_GROUPS, PHOTOS, EncoderTrainingConfig
from dits.bundled_encoder.data import (
    ClassPrototypes,
    TrainingPairs,
    ValidationClips,
    drop_words,
    load_pairs,
    pair_rows,
    same_text,
    validation_clips,
)
from dits.bundled_encoder.features import ModelFeatures
from dits.bundled_encoder.pairs.gathering import Report
from dits.bundled_encoder.pairs.shards import INDEX
from dits.bundled_encoder.pictures import Augmentation
from dits.bundled_encoder.ridge import kernel_ridge_baseline, weighted_ridge
from dits.bundled_encoder.state import EncoderState
from dits.common.errors import DitsError, require
from dits.common.files import sha256_of, write_json
from dits.corpora.corpus import Corpus
from dits.encoders.towers import image_stages, pretrained_model, write_model
from dits.evaluation.metrics import selection_key
from dits.models.losses import sigmoid_loss, symmetric_cross_entropy
from dits.training.optimisation import warmup_cosine

_TARGET_NORM = 10.0  # about the norm of CLIP's embeddings, because the sampler's noise depends on magnitudes
_LOSS_RATE = 1e-2  # learning rate of the sigmoid loss's scale and bias
_STATE = "encoder-state.safetensors"
_BASELINE_PAIRS = 2000


def train_encoder(
    corpora: Sequence[Corpus],
    pairs: Path,
    folder: Path,
    config: EncoderTrainingConfig,
    report: Report,
    run: Path | None = None,
) -> dict[str, Any]:
    """Trains the bundled encoder and writes it to `folder` in OpenCLIP's format, with a summary, which is returned.

    Args:
        corpora: the step whose weights are written is the best on their validation splits together: by the mean of
            each measure over the corpora.
        pairs: the folder of shards to train on.
        folder: the folder to write.
        config: all settings.
        report: called with every line of progress.
        run: a folder for the state at every validation; a run in this folder is resumed.

    Raises:
        InputError: a corpus has no validation split.
        EncoderError: a package with pretrained weights is missing.
        PairsError: the shards are missing, damaged, or lack a source.
        VideoError: a clip cannot be decoded.
        CheckpointError: the state in `run` is damaged, or belongs to another run.
        StorageError: the folder cannot be written.
        DitsError: the loss is not finite; the state of the last validation stays saved.
    """
    selection = [corpus.split("validation") for corpus in corpora]
    torch.manual_seed(config.seed)
    loaded = load_pairs(pairs, config.source_names)
    model, classifier = pretrained_model(folder)
    device = _device(config.device)
    trunk: Any = model.to(device).visual.trunk.to(memory_format=torch.channels_last)  # type: ignore[union-attr]

    def progress(done: int, total: int) -> None:
        if done == total or done % 512 < 32:  # about once per cached part
            report(f"Computing features with the pretrained image tower: {done}/{total} pictures")

    rows = pair_rows(trunk, loaded, config.crops, config.kept_stages, progress)
    data = TrainingPairs(loaded, rows, config.balance, config.fold)
    validation = [validation_clips(trunk, part, config.kept_stages, progress) for part in selection]
    trainer = _EncoderTrainer(model, folder, classifier, data, validation, config)
    baseline = trainer.kernel_ridge()
    report(f"Kernel ridge map between the frozen towers: {_line(baseline)}")
    best = trainer.run(report, run / _STATE if run else None, {"pairs": sha256_of(pairs / INDEX)})
    with torch.no_grad():
        model.logit_scale.fill_(math.log(trainer.temperature))  # type: ignore[operator]
    write_model(model.cpu(), folder)
    summary = {
        "config": asdict(config),
        "pairs": {name: len(data.members([name])) for name in config.source_names if name != CLASSES},
        "selected_on": [part.name for part in selection],
        "validation": best,
        "kernel_ridge": baseline,
    }
    write_json(folder / "training.json", summary)
    return summary


class _EncoderTrainer:
    """Tunes a model and validates the moving average of its weights."""

    def __init__(
        self, model: nn.Module, folder: Path, classifier: Tensor, data: TrainingPairs,
        validation: Sequence[ValidationClips], config: EncoderTrainingConfig,
    ) -> None:  # fmt: skip
        self.device = _device(config.device)
        self.model: Any = model
        self.config, self.data, self.validation = config, data, validation
        self.features = ModelFeatures(model, folder, config, self.device)
        self.photo_rows = data.members(PHOTOS)
        self._clips = data.mean_features(self.photo_rows)
        self.classes = ClassPrototypes.of(classifier, self._clips)
        counts = [len(texts) for texts in data.texts]
        self.frozen_texts = list(
            self.features.pretrained_texts([t for texts in data.texts for t in texts]).split(counts)
        )
        class_texts = self.features.texts([text for names in self.classes.texts for text in names])
        self.frozen_class_texts = class_texts.view(len(self.classes.texts), 2, -1)
        backdrops = [data.pictures[data.starts[row]] for row in self.photo_rows]
        self.augment = Augmentation(backdrops, config.seed)
        self.loss_parameters: dict[str, nn.Parameter] = {}
        if config.loss == "sigmoid":
            start = {"scale": math.log(config.temperature), "bias": -config.temperature / 2}
            self.loss_parameters = {n: nn.Parameter(torch.tensor(v, device=self.device)) for n, v in start.items()}

    @property
    def temperature(self) -> float:
        """The factor on cosines: the setting, or what the sigmoid loss has learned."""
        learned = self.loss_parameters.get("scale")
        return self.config.temperature if learned is None else learned.exp().item()

    def kernel_ridge(self) -> dict[str, Any]:
        """`kernel_ridge_baseline` for the first corpus, fitted on at most _BASELINE_PAIRS photographs."""
        chosen = self.photo_rows
        if len(chosen) > _BASELINE_PAIRS:
            chosen = np.random.default_rng(0).choice(chosen, _BASELINE_PAIRS, replace=False)
        captions = torch.stack([self.frozen_texts[row].mean(dim=0) for row in chosen])
        clips = self.validation[0]
        videos = clips.frames.features.float()[clips.frame_of].mean(dim=1)
        texts = self.features.texts(clips.captions)
        own = np.arange(len(chosen))
        return kernel_ridge_baseline(captions, self.data.mean_features(chosen), own, texts, videos, clips.clip_of)

    # --- Features of the towers, before the projections ---

    def frozen_training_features(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """Text features (N, 384) and picture features (P, 1280) of the photographs, and the picture of each text."""
        captions = [self.frozen_texts[row] for row in self.photo_rows]
        clip_of = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
        return torch.cat(captions), self._clips, clip_of

    # --- The projections ---

    def set_projections(self) -> None:
        """Sets the text projection to a random isometry, and fits the image projection by ridge regression on texts.

        Both are centred on the photographs and their captions, which avoids hubs in the embedding space. Drawings and
        classes are centred separately in the regression, which then learns the differences among them, not those from
        photographs.
        """
        c = self.config
        text, image = self.model.text.proj, self.model.visual.head.proj
        isometry = torch.linalg.qr(torch.randn(text.out_features, text.in_features))[0]
        captions, clips, clip_of = self.frozen_training_features()
        parts = [(clips[clip_of], captions, 1.0)]
        drawings = self.data.members(DRAWINGS)
        if len(drawings):
            names = torch.stack([self.frozen_texts[row][-1] for row in drawings])
            parts.append((self.data.mean_features(drawings), names, c.drawing_weight))
        if CLASSES in c.source_names:
            parts += [(self.classes.rows, self.frozen_class_texts[:, n], c.class_weight) for n in range(2)]
        x = torch.cat([features - features.mean(dim=0) for features, _, _ in parts]) / clips.norm(dim=-1).mean()
        y = torch.cat([texts - texts.mean(dim=0) for _, texts, _ in parts]) / captions.norm(dim=-1).mean()
        weights = torch.cat([torch.full((len(features),), weight) for features, _, weight in parts])
        solution = isometry @ weighted_ridge(x, y, weights, c.ridge).T
        with torch.no_grad():
            text.weight.copy_(isometry)
            centre = captions.mean(dim=0)
            self.model.text.transformer.encoder.layer[-1].output.LayerNorm.bias.sub_(centre.to(self.device))
            self.frozen_texts = [features - centre for features in self.frozen_texts]
            self.frozen_class_texts = self.frozen_class_texts - centre
            image.weight.copy_(solution)
            image.bias.copy_(-solution @ clips.mean(dim=0))
        self.set_scale()

    def set_scale(self) -> None:
        """Scales both projections so that embeddings have about the norm of CLIP's."""
        captions = self.features.texts(self.validation[0].captions).to(self.device)
        clips = self.features.frames(self.validation[0]).mean(dim=1)
        with torch.no_grad():
            for layer, features in ((self.model.text.proj, captions), (self.model.visual.head.proj, clips)):
                factor = _TARGET_NORM / layer(features).norm(dim=-1).mean()
                for parameter in layer.parameters():
                    parameter.mul_(factor)

    # --- Training ---

    def run(self, report: Report, path: Path | None, key: dict[str, Any]) -> dict[str, Any]:
        """Sets the projections and tunes the model; loads the best validated average and returns its record."""
        c = self.config
        if c.hard:
            means = torch.stack([texts.mean(dim=0) for texts in self.frozen_texts])
            means = means - means.mean(dim=0)
            for group in PHOTO_GROUPS:
                self.data.find_neighbours(means, group)
        self.set_projections()
        report(f"Ridge regression: {_line(self.features.validate(self.validation))}")
        self.tune_projections()
        first = {"step": 0, **self.features.validate(self.validation)}
        report(f"Projections tuned, towers frozen: {_line(first)}")
        state = EncoderState(self.model, self._parameters(), c.averaging, {"config": asdict(c), **key})
        if path is not None and state.resume(path):
            report(f"Going on after step {state.step} of the run in {path.parent}.")
        else:
            state.record(first, selection_key)
        while state.step < c.steps and not self._out_of_patience(state):
            loss = self._step(state)
            if state.step % c.validate_every == 0 or state.step == c.steps:
                with state.averaged():
                    record = {"step": state.step, "loss": loss, **self.features.validate(self.validation)}
                state.record(record, selection_key)
                report(f"Step {state.step}: loss {loss:.3f}, {_line(record)}")
                if path is not None:
                    state.save(path)
        state.load_best()
        self.set_scale()
        return state.best

    def tune_projections(self) -> None:
        """Tunes the projections on features of the frozen towers; their average over the second half is the result."""
        c = self.config
        layers = (self.model.text.proj, self.model.visual.head.proj)
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        self.model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        groups: list[dict[str, Any]] = [{"params": parameters}]
        if self.loss_parameters:
            groups.append({"params": list(self.loss_parameters.values()), "lr": _LOSS_RATE})
        optimizer = torch.optim.AdamW(groups, lr=c.projection_rate, weight_decay=0.01)
        means = [torch.zeros_like(parameter) for parameter in parameters]
        averaged = c.projection_steps - c.projection_steps // 2
        for step in range(c.projection_steps):
            optimizer.zero_grad()
            self._backward_frozen(step)
            optimizer.step()
            if step >= c.projection_steps - averaged:
                for mean, parameter in zip(means, parameters, strict=True):
                    mean += parameter.detach() / averaged
        if c.projection_steps:
            with torch.no_grad():
                for mean, parameter in zip(means, parameters, strict=True):
                    parameter.copy_(mean)

    def _backward_frozen(self, step: int) -> None:
        """Adds the gradients of one batch of frozen features, four times as large as the batches of `_step`."""
        c = self.config
        rng = np.random.default_rng((c.seed, 1, step))
        torch.manual_seed(c.seed * 100_003 + 50_000 + step)
        for sources, size, weight in self._parts():
            rows = self.data.draw(sources, 4 * size, rng, c.hard if sources[0] in PHOTOS else 0.0)
            if len(rows) > 1 and weight:
                features = self.data.draw_features(rows, rng)
                texts = [self.frozen_texts[row][rng.integers(len(self.frozen_texts[row]))] for row in rows]
                self._backward(torch.stack(texts), features, weight)
        if self._uses_classes:
            drawn = rng.choice(len(self.classes.texts), size=min(1000, 4 * c.classes), replace=False)
            class_texts = self.frozen_class_texts[drawn, rng.integers(2, size=len(drawn))]
            self._backward(class_texts, self.classes.rows[drawn], c.class_weight)

    def _parts(self) -> list[tuple[list[str], int, float]]:
        """Sources, number and weight of each group of photographs, and of the drawings, in a batch."""
        c = self.config
        groups = [[name for name in group if name in c.source_names] for group in PHOTO_GROUPS]
        groups = [group for group in groups if group]
        shares = np.array([self.data.share(group) for group in groups])
        sizes = np.round(c.photographs * shares / shares.sum()).astype(int)
        parts = [(g, max(2, int(size)), 1 / len(groups)) for g, size in zip(groups, sizes, strict=True)]
        return [*parts, ([s for s in DRAWINGS if s in c.source_names], c.drawings, c.drawing_weight)]

    @property
    def _uses_classes(self) -> bool:
        return bool(self.config.classes and self.config.class_weight and CLASSES in self.config.source_names)

    def _out_of_patience(self, state: EncoderState) -> bool:
        patience = self.config.patience * self.config.validate_every
        return bool(patience) and state.step - state.best["step"] >= patience

    def _parameters(self) -> list[tuple[dict[str, nn.Parameter], float]]:
        """The tuned parameters by name, in groups with their learning rates."""
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
        rate_of = {id(p): rate for rate, group in modules.items() for module in group for p in module.parameters()}
        named = [(name, p) for name, p in self.model.named_parameters() if rate_of.get(id(p), 0) > 0]
        named += self.loss_parameters.items()
        rate_of |= {id(p): _LOSS_RATE for p in self.loss_parameters.values()}
        for _, parameter in named:
            parameter.requires_grad_(True)
        rates = sorted({rate_of[id(p)] for _, p in named})
        return [({name: p for name, p in named if rate_of[id(p)] == rate}, rate) for rate in rates]

    def _step(self, state: EncoderState) -> float:
        c = self.config
        rng = np.random.default_rng((c.seed, state.step))
        torch.manual_seed(c.seed * 100_003 + state.step)
        self.augment.rng = rng
        state.optimizer.zero_grad()
        total = 0.0
        for sources, size, weight in self._parts():
            rows = self.data.draw(sources, size, rng, c.hard if sources[0] in PHOTOS else 0.0)
            if len(rows) > 1 and weight:
                drawn_texts = self.data.draw_texts(rows, rng)
                texts = [drop_words(text, c.word_dropout, rng) for text in drawn_texts]
                features = self._picture_features(rows, rng)
                total += self._backward(texts, features, weight, same_text(drawn_texts))
        if self._uses_classes:
            drawn = rng.choice(len(self.classes.texts), size=c.classes, replace=False)
            names = [self.classes.texts[i][rng.integers(2)] for i in drawn]
            total += self._backward(names, self.classes.rows[drawn], c.class_weight)
        if not math.isfinite(total):
            raise DitsError(
                f"The loss is not finite at step {state.step + 1}: lower the learning rates. "
                "The state of the last validation stays saved."
            )
        state.update(warmup_cosine(state.step, c.steps, c.warmup))
        return total

    def _picture_features(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Features (B, 1280) of the pairs' pictures: of a frozen tower, of kept views, or of new random views."""
        if not self.config.image_stages:
            return self.data.draw_features(rows, rng)
        if self.config.kept_stages:
            first, second = self.data.draw_views(rows, rng)
            second = np.where(self.data.counts[rows] > 1, second, first)  # of a clip two frames, of a still one view
            numbers, place = np.unique(np.stack([first, second]), return_inverse=True)
            maps = self.data.rows.select_maps(numbers)
            with self.features.precision():
                features = self.features.upper_tower(maps)
            return features[torch.from_numpy(place.reshape(2, -1))].mean(dim=0)
        views = torch.stack([self.augment(self.data.pictures[n]) for n in self.data.draw_pictures(rows, rng)])
        with self.features.precision():
            return self.features.image_tower(views)

    def _backward(
        self, texts: list[str] | Tensor, features: Tensor, weight: float, ignored: Tensor | None = None
    ) -> float:
        """Adds the gradients of one contrastive loss; `ignored` (B, B) are pairs that are not negatives."""
        c = self.config
        with self.features.precision():
            text_features = texts.to(self.device) if isinstance(texts, Tensor) else self.features.text_tower(texts)
            text = self.model.text.proj(F.dropout(text_features, c.dropout / 2))
            image = self.model.visual.head.proj(F.dropout(features.to(self.device), c.dropout))
        cosines = F.normalize(text.float(), dim=-1) @ F.normalize(image.float(), dim=-1).T
        if c.loss == "sigmoid":
            loss = sigmoid_loss(cosines, self.loss_parameters["scale"], self.loss_parameters["bias"])
        else:
            scale = torch.tensor(math.log(c.temperature), device=self.device)
            loss = symmetric_cross_entropy(cosines, scale, None if ignored is None else ignored.to(self.device))
        (weight * loss).backward()
        return weight * loss.item()


def _device(name: str) -> torch.device:
    cuda = torch.cuda.is_available()
    require(name != "cuda" or cuda, "There is no CUDA device here: train with --device cpu.")
    return torch.device(name if name != "auto" else "cuda" if cuda else "cpu")


def _line(record: dict[str, Any]) -> str:
    t2v, v2t = record["t2v"], record["v2t"]
    return (
        f"validation text-to-video R@1 {t2v['R@1']:.1f}, R@5 {t2v['R@5']:.1f}, R@10 {t2v['R@10']:.1f}, "
        f"MnR {t2v['MnR']:.2f}, video-to-text R@1 {v2t['R@1']:.1f}"
    )

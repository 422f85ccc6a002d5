"""The configuration of the bundled encoder's training, and recipes in TOML files."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dits.bundled_encoder.pairs.sources import SOURCES
from dits.common.errors import InputError, require

PHOTO_GROUPS = (("demo", "left-out", "templates", "wallpapers"), ("flickr",), ("msrvtt",))
"""Sources of photographs that are contrasted with each other: pairs of other groups would be easy negatives."""

PHOTOS = tuple(name for group in PHOTO_GROUPS for name in group)
DRAWINGS = ("stamps", "clipart", "emoji", "words")
CLASSES = "classes"
MAX_KEPT = 3  # stages; the input of a further stage would be larger than the picture


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """Settings of the bundled encoder's training. Defaults were chosen on the validation split.

    Attributes:
        sources: comma-separated sources of pairs; "classes" means the ImageNet classes of the image tower.
        crops: number of kept random views of a still, besides the plain view; the frames of a clip are its views.
        balance: from 0 (every pair is drawn equally often) to 1 (every source is drawn equally often).
        hard: share of a batch's photographs that are hard negatives: neighbours, by their texts, of the others.
        ridge: strength of the ridge regression that sets the projections.
        drawing_weight: weight of a drawing in regression and loss; a photograph has weight 1.
        class_weight: weight of an ImageNet class in regression and loss; a photograph has weight 1.
        projection_steps: steps that tune only the projections, on features of the frozen towers and with batches four
            times as large.
        steps: maximum number of optimiser steps for projections and towers.
        validate_every: steps between validations; the state for resuming is saved at each.
        patience: validations without a better result before training stops; 0 never stops early.
        warmup: share of the steps with a linear warm-up of the learning rates, before half a cosine to zero.
        projection_rate: learning rate of the projections.
        text_rate: learning rate of the text tower.
        text_layers: number of the text tower's last layers to tune; 0 freezes the tower.
        image_rate: learning rate of the image tower.
        image_stages: number of the image tower's last stages to tune; 0 freezes the tower, 9 tunes all of it. Up to
            MAX_KEPT stages are tuned on kept views: their input is computed once. More take new views at every step.
        photographs: photographs and clips in a batch.
        drawings: drawings in a batch.
        classes: ImageNet classes in a batch.
        word_dropout: probability of dropping a word of a text.
        dropout: dropout on the image tower's features before the projection; the text tower's get half of it.
        loss: softmax (symmetric cross-entropy), or sigmoid (of each pair separately).
        temperature: factor on cosines, written as the model's own; the sigmoid loss learns its factor from this start.
        averaging: decay of the moving average of the weights, which is validated and written; 0 disables it.
        precision: fp32, or bf16 (autocast).
        device: auto, cpu or cuda.
        fold: "k/K" leaves out the k-th of K parts of the photographs, for heads that train on what an encoder has not
            seen (cross-fitting); empty leaves out none.
        seed: seed of all random draws.
    """

    sources: str = "demo,left-out,templates,wallpapers,stamps,clipart,emoji,words,classes"
    crops: int = 2
    balance: float = 0.5
    hard: float = 0.0
    ridge: float = 10.0
    drawing_weight: float = 0.1
    class_weight: float = 0.5
    projection_steps: int = 200
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
    fold: str = ""
    seed: int = 24

    def __post_init__(self) -> None:
        counts = (
            self.crops, self.projection_steps, self.steps, self.patience, self.seed, self.text_layers, self.drawings,
            self.classes,
        )  # fmt: skip
        require(min(counts) >= 0 and self.validate_every >= 1, "Counts and the seed cannot be negative.")
        require(self.photographs >= 2, "A batch needs at least two photographs.")
        require(self.ridge > 0 and self.temperature > 0, "The ridge and the temperature must be above 0.")
        rates = (self.projection_rate, self.text_rate, self.image_rate, self.drawing_weight, self.class_weight)
        require(min(rates) >= 0, "Learning rates and weights cannot be negative.")
        require(self.classes <= 1000, f"There are 1,000 classes to draw from, not {self.classes}.")
        shares = (self.dropout, self.word_dropout, self.averaging, self.warmup, self.hard)
        require(
            all(0 <= share < 1 for share in shares),
            "Dropout, averaging, warm-up and the share of hard negatives must be from 0 to below 1.",
        )
        require(0 <= self.balance <= 1, f"The balance must be from 0 to 1, not {self.balance}.")
        require(0 <= self.image_stages <= 9, f"The image tower has 9 stages to tune, not {self.image_stages}.")
        for name, choices in (
            ("loss", ("softmax", "sigmoid")), ("precision", ("fp32", "bf16")), ("device", ("auto", "cpu", "cuda")),
        ):  # fmt: skip
            require(getattr(self, name) in choices, f"The {name} must be one of {', '.join(choices)}.")
        known = (*SOURCES, CLASSES)
        unknown = [name for name in self.source_names if name not in known]
        require(not unknown, f"There is no source '{', '.join(unknown)}': choose from {', '.join(known)}.")
        require(any(name in PHOTOS for name in self.source_names), "Training needs a source of photographs or clips.")

        if self.fold:
            parse_fold(self.fold)

    @property
    def kept_stages(self) -> int:
        """The number of the image tower's last stages that are tuned on kept views; 0 if none is."""
        return self.image_stages if self.image_stages <= MAX_KEPT else 0

    @property
    def source_names(self) -> tuple[str, ...]:
        """The sources, as a tuple."""
        return tuple(name.strip() for name in self.sources.split(",") if name.strip())


def parse_fold(text: str) -> tuple[int, int]:
    """The number of a fold, from 1, and the number of folds: "2/4" is (2, 4).

    Raises:
        InputError: it is not of this form.
    """
    number, _, count = text.partition("/")
    fits = number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) and int(count) >= 2
    require(fits, f"The fold must be of the form 1/4, the first of four, not '{text[:20]}'.")
    return int(number), int(count)


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings of a recipe: a TOML file with fields of the configuration.

    Raises:
        InputError: it cannot be read, or has an unknown setting or one of the wrong type.
    """
    import tomllib

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the recipe {path}: {str(error).lower()}.") from error
    types: dict[str, Any] = {field.name: field.type for field in fields(EncoderTrainingConfig)}
    for name, value in settings.items():
        require(name in types, f"{path} sets '{name}', which is not a setting: choose from {', '.join(types)}.")
        fits = isinstance(value, (int, float) if types[name] is float else types[name]) and not isinstance(value, bool)
        require(fits, f"{path}: {name} must be of type {types[name].__name__}, not {value!r}.")
    return settings

"""The paper's ablations as data: the models of each table, and the paper's numbers on MSR-VTT."""

from dataclasses import dataclass, field
from typing import Any

from dits.common.files import sha256_of_json
from dits.models.retrieval import PARTS, ModelConfig

Numbers = tuple[float, float, float, float, float]
"""R@1, R@5, R@10, MdR, MnR."""


@dataclass(frozen=True)
class Variant:
    """A model to train: a method, the settings that differ from the grid's, and the variant to start from.

    Attributes:
        method: name in the registry.
        settings: fields of `ModelConfig`'s sections, as "section.field".
        training: fields of `TrainingConfig`.
        start: the variant whose weights, of the same seed, training starts from.
        trained: False uses the weights of `start` without training, for settings that only affect inference.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    start: "Variant | None" = None
    trained: bool = True

    def config(self, base: ModelConfig, seed: int) -> ModelConfig:
        """The grid's configuration `base` with this variant's settings, and `seed` for draws at inference."""
        sections = {name: dict(values) for name, values in base.sections().items()}
        for name, value in self.settings.items():
            section, _, entry = name.partition(".")
            sections[section][entry] = value
        for fields in sections.values():
            if "inference_seed" in fields:
                fields["inference_seed"] = seed
        return ModelConfig(self.method, **{name: PARTS[name](**values) for name, values in sections.items()})

    @property
    def label(self) -> str:
        """A short description: the method and the settings."""
        settings = [f"{name.rpartition('.')[2]} {value}" for name, value in (self.settings | self.training).items()]
        return ", ".join([self.method, *settings])

    @property
    def key(self) -> str:
        """A checksum that identifies the variant."""
        return sha256_of_json(self._as_list())[:12]

    def _as_list(self) -> list[Any]:
        start = self.start._as_list() if self.start else None
        return [self.method, self.settings, self.training, start, self.trained]


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, its model, and the paper's numbers if it has this row."""

    label: str
    variant: Variant
    paper: Numbers | None = None


@dataclass(frozen=True)
class Table:
    """A comparison.

    Attributes:
        title: the heading in the report.
        source: the paper's table, or the reason for the comparison.
        rows: the models; differences are to the first one.
        note: remarks for the reader.
    """

    title: str
    source: str
    rows: tuple[Row, ...]
    note: str = ""


MEAN = Variant("mean")
XPOOL = Variant("xpool")
DITS = Variant("dits")
_PRETRAINING = {"learning_rate": 1e-4, "epochs": 10}  # DiT's learning rate; a step needs one network call, not T

_XPOOL_PAPER = (46.9, 72.8, 82.2, 2.0, 14.3)
_DITS_PAPER = (51.9, 75.7, 84.6, 1.0, 11.6)
_TABLE_6_PAPER = (50.1, 75.5, 84.9, 1.0, 12.2)  # the setting of _DITS_PAPER, with other numbers in the paper


def _sampler(**settings: Any) -> Variant:
    return Variant("dits", {f"sampler.{name}": value for name, value in settings.items()})


def _noisy(samples: int) -> Variant:
    settings = {"sampler.inference_noise_scale": 1.0, "sampler.inference_samples": samples}
    return Variant("dits", settings, start=DITS, trained=False)


def _diffusion(objective: str, **settings: Any) -> Variant:
    fields = {f"diffusion.{name}": value for name, value in settings.items()}
    return Variant("diffusion", fields, {"objective": objective, **_PRETRAINING}, XPOOL)


TABLES = {
    "methods": Table(
        "Methods",
        "Table 4 of the paper, with mean pooling and T-MASS",
        (
            Row("X-Pool", XPOOL, _XPOOL_PAPER),
            Row("Mean pooling", MEAN),
            Row("T-MASS, each pair by its own video", Variant("tmass"), (50.2, 75.3, 85.1, 1.0, 11.9)),
            Row("Fixed prior, variance 1.0", Variant("prior", {"prior.variance": 1.0}), (28.0, 61.9, 74.7, 3.0, 19.7)),
            Row("Fixed prior, variance 0.1", Variant("prior", {"prior.variance": 0.1}), (45.1, 73.3, 82.6, 2.0, 13.8)),
            Row("Diffusion, pretrained (L2)", _diffusion("l2"), (35.4, 66.7, 78.3, 3.0, 14.4)),
            Row(
                "Diffusion, then fine-tuned (contrastive)",
                Variant("diffusion", start=_diffusion("l2")),
                (46.5, 73.9, 83.0, 2.0, 13.3),
            ),
            Row("Diffusion, pretrained (L2), its predicted gap bounded", _diffusion("l2", longest_gap=1.0)),
            Row(
                "Diffusion, bounded, then fine-tuned (contrastive)",
                Variant("diffusion", {"diffusion.longest_gap": 1.0}, start=_diffusion("l2", longest_gap=1.0)),
            ),
            Row("DITS", DITS, _DITS_PAPER),
        ),
        "Bounded: a predicted gap longer than the text embedding is shortened to its length, like the clipping in "
        "DDPM's code; Equation 7 as printed multiplies the network's errors by 480 over the trajectory. The paper's "
        "T-MASS number (Table 1) comes from the released evaluation, which pools every video with its own caption.",
    ),
    "steps": Table(
        "Number of steps T'",
        "Table 5a",
        (
            Row("T' = 0 (X-Pool)", XPOOL, _XPOOL_PAPER),
            Row("T' = 1", _sampler(steps=1), (49.2, 75.0, 85.1, 2.0, 11.3)),
            Row("T' = 5", _sampler(steps=5), (49.6, 75.1, 84.9, 2.0, 11.2)),
            Row("T' = 10", DITS, _DITS_PAPER),
            Row("T' = 15", _sampler(steps=15), (51.1, 76.1, 85.8, 1.0, 11.8)),
            Row("T' = 20", _sampler(steps=20), (47.0, 73.9, 83.7, 2.0, 12.2)),
            Row("T' = 30", _sampler(steps=30), (32.5, 63.5, 76.0, 3.0, 16.2)),
            Row("T' = 40", _sampler(steps=40), (0.2, 0.5, 1.0, 493.5, 497.9)),
        ),
        "For every T', beta is spaced from 0.1 to 0.99; the paper does not say whether it does this.",
    ),
    "encoder": Table(
        "Encoder fixed",
        "Table 5b",
        (Row("X-Pool, encoder fixed", XPOOL), Row("DITS, encoder fixed", DITS, (39.2, 65.4, 77.1, 2.0, 18.0))),
        "All models here are trained on cached embeddings with a fixed encoder. The paper's joint row (51.9) needs "
        "training from video: python -m dits train dits --joint. The paper has no X-Pool with a fixed encoder.",
    ),
    "condition": Table(
        "What the network sees besides the point",
        "Table 6a",
        (
            Row("nothing", DITS, _TABLE_6_PAPER),
            Row("the text", _sampler(condition="text"), (42.3, 70.6, 80.9, 2.0, 14.3)),
            Row("the video", _sampler(condition="video"), (23.1, 51.9, 65.9, 5.0, 24.8)),
            Row("both", _sampler(condition="both"), (40.9, 71.3, 80.8, 2.0, 15.0)),
        ),
        "Here every pair of text and video is conditioned on the pair's video, in training and in ranking.",
    ),
    "direction": Table(
        "Direction of the gap",
        "Table 6b",
        (
            Row("from the text to the video (v - t)", DITS, _TABLE_6_PAPER),
            Row(
                "from the video to the text (t - v)", _sampler(direction="video-to-text"), (39.2, 65.4, 77.1, 2.0, 18.0)
            ),
        ),
        "The paper prints the same five numbers for the second row and for DITS with a fixed encoder (Table 5b): one "
        "is probably a copy.",
    ),
    "start": Table(
        "Where the path begins",
        "the paper's argument for a truncated start; the paper has no such rows",
        (
            Row("at the text", DITS),
            Row("at the text, conditioned on it", _sampler(condition="text")),
            Row("at Gaussian noise, conditioned on the text", _sampler(start="gaussian", condition="text")),
        ),
    ),
    "loss": Table(
        "Loss",
        "Table 7, and the same on DITS",
        (
            Row("DITS, contrastive", DITS, _DITS_PAPER),
            Row("DITS, L2 to the video", Variant("dits", {}, {"objective": "l2"}, XPOOL)),
            Row("DITS, L1 to the video", Variant("dits", {}, {"objective": "l1"}, XPOOL)),
            Row("Diffusion, L2", _diffusion("l2"), (35.4, 66.7, 78.3, 3.0, 14.4)),
            Row("Diffusion, L1", _diffusion("l1"), (30.9, 59.5, 68.4, 4.0, 40.6)),
        ),
        "Regression leaves the pooling as X-Pool trained it. The diffusion model is pretrained for 10 epochs at 1e-4.",
    ),
    "controls": Table(
        "Controls",
        "not in the paper: the effect of each part of DITS",
        (
            Row("DITS", DITS),
            Row("without noise", _sampler(noise_scale=0.0)),
            Row("noise of a tenth", _sampler(noise_scale=0.1)),
            Row("noise at inference, one draw", _noisy(1)),
            Row("noise at inference, mean of 20 draws", _noisy(20)),
            Row("equal steps (chi = 1 / T')", _sampler(step_size="uniform")),
            Row("equal steps without noise", _sampler(step_size="uniform", noise_scale=0.0)),
            Row("residual MLP of the same size", Variant("mlp")),
            Row("pooling by v_0", Variant("dits", {"pooling.attend_with": "aligned"})),
            Row("X-Pool", XPOOL),
            Row("X-Pool, texts moved by the mean gap", Variant("shift")),
            Row("Mean pooling", MEAN),
            Row("Mean pooling, texts moved by the mean gap", Variant("shift", {"pooling.kind": "mean"})),
            Row("DITS on mean pooling", Variant("dits", {"pooling.kind": "mean"})),
            Row(
                "DITS on mean pooling, without noise",
                Variant("dits", {"pooling.kind": "mean", "sampler.noise_scale": 0.0}),
            ),
        ),
    ),
}
"""All tables, by their names on the command line. Paper numbers: MSR-VTT, ViT-B/32, text to video."""

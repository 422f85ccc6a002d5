"""The configuration of a training on cached embeddings."""

from dataclasses import dataclass

from dits.common.errors import require
from dits.models.alignment import require_choice
from dits.models.retrieval import MAX_TEMPERATURE


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training. Defaults are those of the paper and its baselines (section 4.1; layer6ai-labs/xpool).

    Attributes:
        epochs: passes over all captions, or over `epoch_captions` of them (5).
        epoch_captions: captions in an epoch, at the end of which the model is validated. Every epoch draws them anew,
            in full batches: 9600 in batches of 96 are 100 steps. 0, the default, takes all captions once.
        batch_size: pairs in a batch (32). No two captions of a batch share a video, as they would be false negatives;
            the baselines do not ensure this.
        learning_rate: learning rate of the pooling and the sampler (3e-5 on MSR-VTT, 1e-5 elsewhere).
        clip_learning_rate: learning rate of CLIP's parameters, of which only the temperature trains here (1e-6 in the
            code of X-Pool and T-MASS; the paper prints 1e-5, probably a misprint).
        temperature: the factor of the cosines in the loss at the start, up to 100 (100, to which CLIP's own has grown);
            it is trained. 100 keeps the temperature of the weights to start from (--init), if there are any. 0 is the
            encoder's own, and the default with --joint, where it keeps that of --init instead.
        temperature_rate: learning rate of the logarithm of the temperature, which then has no weight decay, as in CLIP.
            0 trains it at `clip_learning_rate`, with weight decay, as the baselines do.
        projection_rate: learning rate of the encoder's projections, if they are tuned too (ours: 1e-4).
        feature_dropout: dropout on the features of the towers before the projections, if these are tuned too (ours: 0).
        weight_decay: weight decay of AdamW, on all parameters (0.2).
        warmup: share of the steps with a linear warm-up, before half a cosine to zero (0.1).
        clip_norm: maximum norm of the gradients (1.0 in the baselines' code).
        patience: epochs without a better validation result before training stops; 0 never stops early.
        objective: contrastive (Equation 2), or l2 or l1 between the aligned text and its pooled video, without gradient
            (Equation 6 and Table 7); l2 and l1 do not train pooling and temperature.
        alignment_weight: weight of a term that is added to the contrastive loss, the mean of 1 - cosine of the aligned
            text and its own video, in units of the loss (ours: 0, without it). It closes the gap, which the
            contrastive loss alone need not do.
        ignore: pairs of a batch that are not used as negatives: video (the text describes the other video), caption
            (the other video has the same caption, word for word), both, or none as in the baselines. If no batch
            holds a video twice, video has no effect.
        precision: fp32, or bf16 for matrix products under autocast (with --joint, only those of the encoder). Weights,
            cosines, losses and validation are fp32.
        select_on: split on which the best epoch is chosen: validation, or test as in the baselines. The choice is
            recorded in the weights.
        seed: seed of initialisation, batches, dropout and noise (24).
    """

    epochs: int = 5
    epoch_captions: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-5
    clip_learning_rate: float = 1e-6
    temperature: float = MAX_TEMPERATURE
    temperature_rate: float = 0.0
    projection_rate: float = 1e-4
    feature_dropout: float = 0.0
    weight_decay: float = 0.2
    warmup: float = 0.1
    clip_norm: float = 1.0
    patience: int = 0
    objective: str = "contrastive"
    alignment_weight: float = 0.0
    ignore: str = "both"
    precision: str = "fp32"
    select_on: str = "validation"
    seed: int = 24

    def __post_init__(self) -> None:
        require_choice("objective", self.objective, ("contrastive", "l2", "l1"))
        require_choice("ignore", self.ignore, ("none", "video", "caption", "both"))
        require_choice("split to select on", self.select_on, ("validation", "test"))
        require(
            self.precision in ("fp32", "bf16"),
            f"There is no precision '{self.precision}': choose one of fp32, bf16.",
        )
        require(
            self.epochs >= 1 and self.batch_size >= 2, "Training needs at least 1 epoch and a batch size of at least 2."
        )
        require(
            self.epoch_captions == 0 or self.epoch_captions >= self.batch_size,
            f"An epoch of {self.epoch_captions} captions holds no batch of {self.batch_size}: choose more, or 0 for "
            "all.",
        )
        rates = (
            self.learning_rate, self.clip_learning_rate, self.temperature_rate, self.projection_rate, self.weight_decay
        )  # fmt: skip
        require(min(rates) >= 0, "Learning rates and weight decay cannot be negative.")
        require(
            0 <= self.temperature <= MAX_TEMPERATURE,
            f"The temperature must be from 0 to {MAX_TEMPERATURE:g}, not {self.temperature}.",
        )
        require(0 <= self.feature_dropout < 1, f"The dropout must be from 0 to below 1, not {self.feature_dropout}.")
        require(self.alignment_weight >= 0, f"The alignment weight cannot be negative: {self.alignment_weight}.")
        require(
            self.alignment_weight == 0 or self.objective == "contrastive",
            f"The alignment weight adds to the contrastive loss: leave it out with the objective {self.objective}.",
        )
        require(0 <= self.warmup < 1, f"The warm-up must be a share from 0 to below 1, not {self.warmup}.")
        require(self.clip_norm > 0 and self.patience >= 0, "The clipping norm must be above 0, the patience 0 or more.")
        require(0 <= self.seed < 2**31, f"The seed must be from 0 to {2**31 - 1}, not {self.seed}.")

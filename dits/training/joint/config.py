"""How encoder and retrieval model are trained together from video: one configuration."""

from dataclasses import dataclass

from dits.common.errors import require
from dits.corpora.corpus import FRAMES
from dits.corpora.decode_check import SECONDS
from dits.training.trainer import TrainingConfig


@dataclass(frozen=True)
class JointTrainingConfig(TrainingConfig):
    """How CLIP and a retrieval model are trained together. Defaults are the paper's and its baselines'.

    The sources are section 4.1 of the paper and the code of X-Pool (layer6ai-labs/xpool), T-MASS and CLIP4Clip. Both
    published rates for CLIP can be had: 1e-6 is X-Pool's and T-MASS's code; `clip_learning_rate` 1e-5 is what the paper
    prints, as "same as X-Pool".

    Attributes:
        batch_size: pairs in a batch, over all processes (32). Every batch is full.
        clip_learning_rate: of all of CLIP's parameters, the temperature among them (1e-6 in X-Pool's and T-MASS's code;
            1e-5 as printed in the paper, probably a misprint).
        patience: evaluations without a better result before training stops; 0 never stops early.
        decay_vectors: weight decay on biases, norms and the temperature too, as X-Pool does; CLIP4Clip leaves these
            out.
        adam_epsilon: of AdamW (1e-6 in X-Pool's and CLIP4Clip's code; 1e-8 is PyTorch's default).
        frames: frames of a video in training (12); evaluation takes 12 always.
        frame_sampling: uniform takes the middle of each of as many equal segments (X-Pool's commands), random a random
            moment of it (X-Pool's "rand").
        augment: one random crop (half to all of the picture) and flip for all frames of a clip, as X-Pool does;
            without, the encoder's own crop, as CLIP4Clip does.
        distinct_videos: a batch holds no two captions of one video. The baselines do not take care of that.
        precision: fp32, or bf16 for the encoder under autocast.
        micro_batch: pairs that a process embeds at once, with the memory of so many and the gradients of the whole
            batch (GradCache), at the price of a second forward pass; 0 embeds all at once.
        checkpoint_activations: compute activations inside the encoder again instead of keeping them: less memory, a
            third more time.
        workers: processes that decode, for each training process; 0 decodes in the training process.
        prefetch: clips that each of them decodes ahead.
        undecodable: error names a video that cannot be decoded and stops; skip decodes every video once before
            training, in processes apart, and leaves out those that fail, end their process or take too long, with a
            count.
        decode_seconds: how long a video may take then.
        evaluations: evaluations an epoch (1; the baselines 10).
        save_every: steps between states kept for resuming, besides one at every evaluation.
        max_steps: stop after so many steps, the schedule ending there; 0 makes all epochs.
    """

    decay_vectors: bool = True
    adam_epsilon: float = 1e-6
    frames: int = FRAMES
    frame_sampling: str = "uniform"
    augment: bool = True
    distinct_videos: bool = True
    precision: str = "fp32"
    micro_batch: int = 0
    checkpoint_activations: bool = False
    workers: int = 2
    prefetch: int = 8
    undecodable: str = "error"
    decode_seconds: int = SECONDS
    evaluations: int = 1
    save_every: int = 500
    max_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.objective == "contrastive",
            "Training from video is contrastive: an encoder that regresses onto itself would collapse.",
        )
        choices = {
            "frame_sampling": ("uniform", "random"),
            "precision": ("fp32", "bf16"),
            "undecodable": ("error", "skip"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            require(value in allowed, f"There is no {name} '{value}': choose one of {', '.join(allowed)}.")
        require(self.adam_epsilon > 0, f"The adam_epsilon must be above 0, not {self.adam_epsilon}.")
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            require(value >= lowest, f"The {name} must be {lowest} or more, not {value}.")


_LOWEST = {
    "frames": 1,
    "micro_batch": 0,
    "workers": 0,
    "prefetch": 1,
    "decode_seconds": 1,
    "evaluations": 1,
    "save_every": 1,
    "max_steps": 0,
}

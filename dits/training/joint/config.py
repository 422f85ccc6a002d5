"""The configuration of joint training: encoder and retrieval model together, from video."""

from dataclasses import dataclass

from dits.common.errors import require
from dits.corpora.corpus import FRAMES
from dits.training.trainer import TrainingConfig
from dits.video.workers import SECONDS_PER_FILE


@dataclass(frozen=True)
class JointTrainingConfig(TrainingConfig):
    """Settings of a joint training of CLIP and a retrieval model. Defaults are those of the paper and its baselines.

    The sources are section 4.1 of the paper and the code of X-Pool (layer6ai-labs/xpool), T-MASS and CLIP4Clip. Two
    learning rates of CLIP are published: 1e-6 in the code of X-Pool and T-MASS, and 1e-5 in the paper, which calls it
    "same as X-Pool".

    Attributes:
        batch_size: pairs in a batch, over all processes (32). Every batch is full.
        clip_learning_rate: learning rate of all parameters of CLIP, with the temperature (1e-6 in the code of X-Pool
            and T-MASS; the paper prints 1e-5, probably a misprint).
        temperature: the factor of the cosines in the loss at the start, up to 100; it is trained. 0, the default, is
            that of the weights to start from, or else the encoder's own.
        patience: evaluations without a better result before training stops; 0 never stops early.
        decay_vectors: apply weight decay to biases, norms and the temperature too, as X-Pool does; CLIP4Clip does not.
        adam_epsilon: epsilon of AdamW (1e-6 in the code of X-Pool and CLIP4Clip; PyTorch's default is 1e-8).
        frames: frames per video in training (12); evaluation always uses 12.
        frame_sampling: a video has one equal segment per frame; uniform takes the middle of each (X-Pool's commands),
            random a random moment (X-Pool's "rand").
        augment: one random crop (half to all of the picture) and flip for all frames of a clip, as X-Pool does; if off,
            the encoder's own crop, as CLIP4Clip does.
        distinct_videos: no two captions of a batch share a video; the baselines do not ensure this.
        micro_batch: pairs that a process embeds in one pass, to save memory; the gradients are still those of the whole
            batch (GradCache), but need a second forward pass. 0 embeds the whole batch.
        checkpoint_activations: recompute activations inside the encoder instead of storing them; uses less memory and a
            third more time.
        workers: number of decoding worker processes for each training process; 0 decodes in the training process.
        prefetch: clips that each worker process prefetches.
        undecodable: error stops at a video that cannot be decoded and names it; skip decodes every video once before
            training, in separate processes, and leaves out and counts those that fail, crash or take too long.
        decode_seconds: maximum time for a video in this check.
        evaluations: evaluations per epoch (1; 10 in the baselines).
        save_every: steps between saved states for resuming; every evaluation saves one too.
        max_steps: maximum number of steps, where the schedule ends too; 0 trains all epochs.
    """

    temperature: float = 0.0
    decay_vectors: bool = True
    adam_epsilon: float = 1e-6
    frames: int = FRAMES
    frame_sampling: str = "uniform"
    augment: bool = True
    distinct_videos: bool = True
    micro_batch: int = 0
    checkpoint_activations: bool = False
    workers: int = 2
    prefetch: int = 8
    undecodable: str = "error"
    decode_seconds: int = SECONDS_PER_FILE
    evaluations: int = 1
    save_every: int = 500
    max_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.objective == "contrastive",
            "Training from video is contrastive: an encoder that regresses onto itself would collapse.",
        )
        require(
            not (self.epoch_captions or self.feature_dropout),
            "Training from video has no epoch_captions and feature_dropout: leave them out (max_steps and evaluations "
            "set the length of a training and the number of its evaluations).",
        )
        choices = {
            "frame_sampling": ("uniform", "random"),
            "undecodable": ("error", "skip"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            require(value in allowed, f"There is no {name} '{value}': choose one of {', '.join(allowed)}.")
        require(self.adam_epsilon > 0, f"The adam_epsilon must be above 0, not {self.adam_epsilon}.")
        for name, minimum in _MINIMUM.items():
            value = getattr(self, name)
            require(value >= minimum, f"The {name} must be {minimum} or more, not {value}.")


_MINIMUM = {
    "frames": 1, "micro_batch": 0, "workers": 0, "prefetch": 1, "decode_seconds": 1, "evaluations": 1, "save_every": 1,
    "max_steps": 0,
}  # fmt: skip

"""What is compared: methods as variants of the ablation grid, modes of training, and the budget that all share."""

from dataclasses import dataclass, replace
from typing import Any

from dits.ablations.tables import DITS, MEAN, XPOOL, Variant
from dits.common.errors import InputError
from dits.training.config import TrainingConfig

MODES = ("frozen", "joint")
"""frozen: the encoder's embeddings are fixed. joint: the projections of its towers are trained with the method. The
towers themselves are fixed in both."""

REFERENCES = ("xpool", "mean")
"""The methods that every other one is tested against, in the same mode."""


@dataclass(frozen=True)
class Entry:
    """A method of the comparison: its name in files and flags, its title in tables, and what is trained."""

    name: str
    title: str
    variant: Variant


def _dits(**settings: Any) -> Variant:
    return Variant("dits", {f"sampler.{name}": value for name, value in settings.items()})


_BOUND = {"diffusion.longest_gap": 1.0}  # Equation 7 as printed stays at chance (reports/README.md)
_QUIET = {"noise_scale": 0.0}

ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("mean", "Mean pooling", MEAN),
        Entry("xpool", "X-Pool", XPOOL),
        Entry("tmass", "T-MASS", Variant("tmass")),
        Entry("dits", "DITS with the paper's noise", DITS),
        Entry("dits-steps-1", "DITS, T' = 1 (no noise is drawn)", _dits(steps=1)),
        Entry("dits-steps-5", "DITS with the paper's noise, T' = 5", _dits(steps=5)),
        Entry("dits-steps-20", "DITS with the paper's noise, T' = 20", _dits(steps=20)),
        Entry("dits-quiet", "DITS without noise", _dits(**_QUIET)),
        Entry("dits-quiet-steps-5", "DITS without noise, T' = 5", _dits(steps=5, **_QUIET)),
        Entry("dits-quiet-steps-20", "DITS without noise, T' = 20", _dits(steps=20, **_QUIET)),
        Entry("dits-aligned", "DITS without noise, with the alignment term", _dits(**_QUIET)),
        Entry(
            "diffusion",
            "Diffusion, predicted gap bounded",
            Variant("diffusion", _BOUND, start=Variant("diffusion", _BOUND, {"objective": "l2"})),
        ),
        Entry("mlp", "Residual MLP", Variant("mlp")),
        Entry("prior-1.0", "Fixed prior, variance 1.0", Variant("prior", {"prior.variance": 1.0})),
        Entry("prior-0.1", "Fixed prior, variance 0.1", Variant("prior", {"prior.variance": 0.1})),
        Entry("shift", "X-Pool, texts moved by the mean gap", Variant("shift")),
    )
}
"""Every method of the comparison by name, in the order of tables. T' is 10 unless the title says otherwise."""


def entries_named(names: list[str], alignment_weight: float) -> list[Entry]:
    """The entries with these names, in the order of tables, and the references; the alignment term has this weight.

    Raises:
        InputError: there is no such entry.
    """
    unknown = [name for name in names if name not in ENTRIES]
    if unknown or not names:
        raise InputError(f"There is no method '{', '.join(unknown)}' to compare: choose from {', '.join(ENTRIES)}.")
    chosen = [entry for entry in ENTRIES.values() if entry.name in (*names, *REFERENCES)]
    return [_weighted(entry, alignment_weight) if entry.name == "dits-aligned" else entry for entry in chosen]


def stages_of(variant: Variant) -> list[Variant]:
    """The stages in which a variant is trained, in order: a variant that starts from another one has two or more."""
    return [*(stages_of(variant.start) if variant.start else []), variant]


def budget_of(stage: Variant, stages: int, training: TrainingConfig, captions: int, seed: int) -> TrainingConfig:
    """The training of one of a variant's stages: all stages together have the epochs and captions of `training`.

    Each stage has all epochs, and its share of the captions of an epoch. So every method sees the same number of pairs,
    whether it is trained in one stage or, as the diffusion model is, first on the gap and then by its ranks.

    Args:
        captions: the number of captions of the training split, which an epoch has if `training` sets no limit.
    """
    budget = training if stages == 1 else replace(training, epoch_captions=_share(training, captions, stages))
    return replace(budget, **stage.training, seed=seed)


def _share(training: TrainingConfig, captions: int, stages: int) -> int:
    return max(training.batch_size, (training.epoch_captions or captions) // stages)


def _weighted(entry: Entry, alignment_weight: float) -> Entry:
    return replace(entry, variant=replace(entry.variant, training={"alignment_weight": alignment_weight}))

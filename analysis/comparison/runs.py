"""A run: a method that is trained in one mode with one seed, and everything that is measured of it."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from analysis.comparison import measures
from analysis.comparison.features import CorpusFeatures, Features, Part
from analysis.comparison.measures import Trained
from analysis.comparison.methods import Entry, budget_of, stages_of
from dits.common.files import sha256_of_json
from dits.evaluation.metrics import metrics_of
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.training.config import TrainingConfig
from dits.training.trainer import train, validate

_VERSION = 1


@dataclass(frozen=True)
class Run:
    """A method in a mode with a seed."""

    entry: Entry
    mode: str
    seed: int

    @property
    def label(self) -> str:
        """The run in one line."""
        return f"{self.mode}, {self.entry.title}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What all runs share.

    Attributes:
        model: the settings that methods do not set, such as widths.
        training: the budget and the settings that methods do not set; its seed is replaced.
        corpus: the features.
        split: "test" measures everything on the query sets of the test split; "validation" ranks, moves and the
            distance of centroids on the validation split.
    """

    model: ModelConfig
    training: TrainingConfig
    corpus: CorpusFeatures
    split: str = "test"

    def name(self, run: Run) -> str:
        """The name of the run's result, which changes with everything that changes the result."""
        settings = [self.model.sections(), asdict(self.training) | {"seed": run.seed}, self.corpus.key, self.split]
        key = sha256_of_json([run.entry.variant.key, run.mode, settings, _VERSION])[:12]
        return f"{run.mode}-{run.entry.name}-{key}-{run.seed}.json"

    @property
    def queries(self) -> dict[str, Part]:
        """The query sets to measure on, all on the same videos."""
        return self.corpus.queries if self.split == "test" else {"validation": self.corpus.validation}


@dataclass
class _Clock:
    """The processor time of every optimiser step but the first of an epoch, which follows a validation."""

    seconds: list[float] = field(default_factory=list)
    steps: int = 0
    last: float | None = None

    def step(self, done: int, total: int) -> None:
        now = time.process_time()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now
        self.steps += 1

    def epoch(self, record: dict[str, Any]) -> None:
        self.last = None

    @property
    def ms(self) -> float | None:
        return 1000 * float(np.median(self.seconds)) if self.seconds else None


def carry_out(plan: Plan, run: Run, features: Features) -> dict[str, Any]:
    """Trains the method and measures it; the result as JSON values, which hold no caption and no embedding.

    Raises:
        DitsError: the training failed.
    """
    clock = _Clock()
    trained, best = _train(plan, run, features, clock)
    data = {name: trained.embedded(features.part(part, run.mode)) for name, part in plan.queries.items()}
    largest = max(data, key=lambda name: len(data[name].texts))
    frozen = features.part(plan.queries[largest], "frozen")
    result: dict[str, Any] = {
        "mode": run.mode,
        "method": run.entry.name,
        "seed": run.seed,
        "steps": clock.steps,
        "best": best,
        "ranks": measures.ranks(trained.model, data),
        "aligned on": largest,
        "alignment": measures.alignment(trained.model, data[largest], frozen, with_gap=plan.split == "test"),
        "ms": {"step": clock.ms},
    }
    if plan.split == "test":
        result["ms"] |= measures.times(trained.model, data["one"])
        result["leak"] = measures.leak(trained.model, data["one"])
    return result


def summary_line(result: dict[str, Any]) -> str:
    """The result of a run in a few words."""
    name, directions = next(reversed(result["ranks"].items()))
    r1 = metrics_of(np.array(directions["t2v"])).r1
    return f"epoch {result['best']['epoch']}, R@1 {r1:.1f} ({name}), {result['steps']} steps"


def _train(plan: Plan, run: Run, features: Features, clock: _Clock) -> tuple[Trained, dict[str, Any]]:
    """The trained model with the record of its best epoch: stage after stage, each from the one before.

    A stage with another objective than ranking trains the method alone, on the frozen encoder's embeddings: as in the
    paper's first stage of the diffusion model.
    """
    stages = stages_of(run.entry.variant)
    model: RetrievalModel | None = None
    for stage in stages:
        config = stage.config(plan.model, run.seed)
        budget = budget_of(stage, len(stages), plan.training, len(plan.corpus.train.captions), run.seed)
        mode = run.mode if budget.objective == "contrastive" else "frozen"
        data, validation = (features.part(part, mode) for part in (plan.corpus.train, plan.corpus.validation))
        if stage.method == "mean" and mode == "frozen":  # nothing to train
            untrained = RetrievalModel(config).eval()
            return Trained(untrained, None), {"epoch": 0, **validate(untrained, validation)}
        result = train(
            config, budget, data, validation, init=model, on_epoch=clock.epoch, on_step=clock.step,
            projections=features.projections if mode == "joint" else None,
        )  # fmt: skip
        model = result.model
    return Trained(result.model, result.projections), result.best

"""The ablation grid: every variant trained with several seeds on cached features, measured on the test split.

Each run's result is a file of its own in the output folder, so an interrupted grid goes on where it stopped, and two
tables that share a variant share its runs.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from dits.ablation_tables import Table, Variant
from dits.errors import DitsError, StorageError
from dits.evaluation import ranks_of, video_to_text_ranks
from dits.files import atomic_path, sha256_of_json, write_json
from dits.model import ModelConfig, RetrievalModel
from dits.training import PairData, TrainingConfig, train, validate

Report = Callable[[str], None]


@dataclass(frozen=True)
class Splits:
    """The embedded splits: training, what chooses the epoch (the training's `select_on`), and what is only measured."""

    train: PairData
    validation: PairData
    test: PairData


@dataclass(frozen=True)
class Outcome:
    """One run: its variant's ranks on the test split, per query and per video, and what validation chose."""

    t2v_ranks: np.ndarray
    v2t_ranks: np.ndarray
    validation: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What a grid measured.

    Attributes:
        outcomes: the runs of each variant, by its key, one a seed.
        failures: why a variant has no result, by its key, in a sentence.
    """

    outcomes: dict[str, list[Outcome]]
    failures: dict[str, str]


def run_grid(
    tables: Sequence[Table],
    splits: Splits,
    model: ModelConfig,
    training: TrainingConfig,
    seeds: Sequence[int],
    folder: Path,
    report: Report,
) -> Results:
    """Trains and measures every variant of the tables with every seed, or reads what an earlier run has measured.

    A variant whose training fails is left out, with the reason; the others go on.

    Args:
        model: what variants do not set: widths above all.
        training: the same for all variants but for what they set; its seed is replaced.
        folder: results go to `runs/` below it.
        report: told a line a run.

    Raises:
        StorageError: the folder cannot be written, or a result in it is damaged.
    """
    variants = {row.variant.key: row.variant for table in tables for row in table.rows}
    grid = _Grid(splits, model, training, folder / "runs", report)
    grid.starts = {variant.start.key for variant in variants.values() if variant.start}
    results = Results({}, {})
    for key, variant in variants.items():
        try:
            results.outcomes[key] = [grid.outcome(variant, seed) for seed in seeds]
        except StorageError:
            raise
        except DitsError as error:
            results.failures[key] = str(error)
            report(f"{variant.label}: {error}")
    return results


class _Grid:
    def __init__(
        self, splits: Splits, model: ModelConfig, training: TrainingConfig, folder: Path, report: Report
    ) -> None:
        self.splits, self.model, self.training = splits, model, training
        self.folder, self.report = folder, report
        self.digest = _digest(splits)
        self.starts: set[str] = set()  # keys of the variants that others start from

    def outcome(self, variant: Variant, seed: int) -> Outcome:
        path = self._path(variant, seed, ".json")
        if path.is_file():
            return _read(path)
        trained, best = self._trained(variant, seed)
        test = self.splits.test
        scores = trained.gallery(test.frames).scores(test.texts).numpy()
        outcome = Outcome(ranks_of(scores, test.video_of), video_to_text_ranks(scores, test.video_of), best)
        _write(path, outcome)
        chosen = f"epoch {best['epoch']}, {self.training.select_on} R@1 {best['t2v']['R@1']:.1f}"
        self.report(f"{variant.label}, seed {seed}: {chosen}")
        return outcome

    def _trained(self, variant: Variant, seed: int) -> tuple[RetrievalModel, dict[str, Any]]:
        """The variant's model with its best epoch's weights, and that epoch's record."""
        config = variant.config(self.model, seed)
        if variant.method == "mean":
            model = RetrievalModel(config).eval()
            return model, {"epoch": 0, **validate(model, self.splits.validation)}
        weights, record = self._path(variant, seed, ".safetensors"), self._path(variant, seed, ".record.json")
        if weights.is_file() and record.is_file():
            model = RetrievalModel(config)
            model.load_state_dict(load_file(weights))
            return model.eval(), json.loads(record.read_text(encoding="utf-8"))
        start = self._trained(variant.start, seed) if variant.start else None
        if start and not variant.trained:
            model = RetrievalModel(config)
            model.load_state_dict(start[0].state_dict())
            return model.eval(), start[1]
        init = start[0] if start else None
        training = replace(self.training, **variant.training, seed=seed)
        result = train(config, training, self.splits.train, self.splits.validation, init=init)
        if variant.key in self.starts:
            with atomic_path(weights) as temporary:
                save_file({k: v.contiguous() for k, v in result.model.state_dict().items()}, temporary)
            write_json(record, result.best)
        return result.model, result.best

    def _path(self, variant: Variant, seed: int, suffix: str) -> Path:
        key = [variant.key, asdict(self.training) | {"seed": seed}, self.model.as_dict(), self.digest]
        return self.folder / f"{variant.method}-{sha256_of_json(key)[:12]}-{seed}{suffix}"


def _digest(splits: Splits) -> str:
    digest = hashlib.sha256()
    for data in (splits.train, splits.validation, splits.test):
        for array in (data.texts.numpy(), data.frames.numpy(), data.video_of):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(sha256_of_json(data.captions).encode())
    return digest.hexdigest()


def _write(path: Path, outcome: Outcome) -> None:
    ranks = {"t2v": outcome.t2v_ranks.tolist(), "v2t": outcome.v2t_ranks.tolist()}
    write_json(path, {"validation": outcome.validation, "ranks": ranks})


def _read(path: Path) -> Outcome:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        ranks = values["ranks"]
        return Outcome(np.array(ranks["t2v"]), np.array(ranks["v2t"]), values["validation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is no result of this grid: remove it, and it is measured again.") from error

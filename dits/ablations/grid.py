"""The ablation grid: every variant trained with several seeds on cached embeddings, evaluated on the test split.

Each run has a result file in the output folder. An interrupted grid therefore continues where it stopped, and tables
with the same variant share its runs.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dits.ablations.tables import Table, Variant
from dits.common.errors import DitsError, StorageError
from dits.common.files import atomic_path, sha256_of_json, write_json
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import CorpusEmbeddings, embeddings_name
from dits.encoders.openclip import Encoder
from dits.evaluation.metrics import ranks_of, video_to_text_ranks
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.trainer import PairData, Report, TrainingConfig, pair_data, train, validate


@dataclass(frozen=True)
class Splits:
    """The embedded splits: for training, for choosing the epoch (the training's `select_on`), and for evaluation.

    `key` is a checksum of encoder, corpus and captions. The embeddings themselves differ in their last bits with the
    number of threads.
    """

    train: PairData
    validation: PairData
    test: PairData
    key: str


@dataclass(frozen=True)
class Outcome:
    """The result of a run: its ranks on the test split, per query and per video, and the record of the best epoch."""

    t2v_ranks: np.ndarray
    v2t_ranks: np.ndarray
    validation: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The results of a grid.

    Attributes:
        outcomes: for the key of each variant, its results, one per seed.
        failures: for the key of each variant without results, the reason in one sentence.
    """

    outcomes: dict[str, list[Outcome]]
    failures: dict[str, str]


def embedded_splits(parts: Sequence[Corpus], corpus: Corpus, encoder: Encoder, embeddings: CorpusEmbeddings) -> Splits:
    """Embeds splits of a corpus: `parts` are those for training, for choosing the epoch, and for evaluation.

    Raises:
        CorpusError: a video is missing, or has no embeddings.
    """
    captions = [[[clip.id, *clip.captions] for clip in part] for part in parts]
    key = sha256_of_json([encoder.id, embeddings_name(corpus, encoder), captions])
    train_data, validation, test = (pair_data(part, encoder, embeddings) for part in parts)
    return Splits(train_data, validation, test, key)


def run_grid(
    tables: Sequence[Table],
    splits: Splits,
    model: ModelConfig,
    training: TrainingConfig,
    seeds: Sequence[int],
    folder: Path,
    report: Report,
) -> Results:
    """Trains and evaluates every variant of the tables with every seed, or reads the result of an earlier run.

    If the training of a variant fails, the reason is recorded, and the other variants continue.

    Args:
        model: the settings that variants do not set, such as widths.
        training: the settings that variants do not set; its seed is replaced.
        folder: results are written to `runs/` in this folder.
        report: called with a line for every run.

    Raises:
        StorageError: the folder cannot be written, or a result in it is damaged.
    """
    variants = {row.variant.key: row.variant for table in tables for row in table.rows}
    starts = {variant.start.key for variant in variants.values() if variant.start}
    grid = _Grid(splits, model, training, folder / "runs", report, starts)
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
        self, splits: Splits, model: ModelConfig, training: TrainingConfig, folder: Path, report: Report,
        starts: set[str],
    ) -> None:  # fmt: skip
        """`starts` are the keys of the variants that others start from."""
        self.splits, self.model, self.training = splits, model, training
        self.folder, self.report, self.starts = folder, report, starts

    def outcome(self, variant: Variant, seed: int) -> Outcome:
        path = self._path(variant, seed, ".json")
        if path.is_file():
            return _read(path, self.splits.test)
        model, best = self._train(variant, seed)
        test = self.splits.test
        scores = build_gallery(model, test.frames).scores(test.texts).numpy()
        outcome = Outcome(ranks_of(scores, test.video_of), video_to_text_ranks(scores, test.video_of), best)
        _write(path, outcome)
        metrics = f"epoch {best['epoch']}, {self.training.select_on} R@1 {best['t2v']['R@1']:.1f}"
        self.report(f"{variant.label}, seed {seed}: {metrics}")
        return outcome

    def _train(self, variant: Variant, seed: int) -> tuple[RetrievalModel, dict[str, Any]]:
        """The variant's model with the weights of its best epoch, and that epoch's record."""
        config = variant.config(self.model, seed)
        if variant.method == "mean":
            model = RetrievalModel(config).eval()
            return model, {"epoch": 0, **validate(model, self.splits.validation)}
        weights, record = self._path(variant, seed, ".safetensors"), self._path(variant, seed, ".record.json")
        if weights.is_file() and record.is_file():
            model = RetrievalModel(config)
            with _damage_errors(weights):
                model.load_state_dict(load_file(weights))
            with _damage_errors(record):
                return model.eval(), _record(json.loads(record.read_text(encoding="utf-8")))
        start = self._train(variant.start, seed) if variant.start else None
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
        key = [variant.key, asdict(self.training) | {"seed": seed}, self.model.as_dict(), self.splits.key]
        return self.folder / f"{variant.method}-{sha256_of_json(key)[:12]}-{seed}{suffix}"


def _write(path: Path, outcome: Outcome) -> None:
    ranks = {"t2v": outcome.t2v_ranks.tolist(), "v2t": outcome.v2t_ranks.tolist()}
    write_json(path, {"validation": outcome.validation, "ranks": ranks})


def _read(path: Path, test: PairData) -> Outcome:
    with _damage_errors(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        t2v, v2t = (np.array(values["ranks"][name], np.float64) for name in ("t2v", "v2t"))
        if (t2v.shape, v2t.shape) != ((len(test.texts),), (len(np.unique(test.video_of)),)):
            raise ValueError("ranks of other data")
        return Outcome(t2v, v2t, _record(values["validation"]))


def _record(values: Any) -> dict[str, Any]:
    """The record of an epoch. Raises KeyError, TypeError or ValueError for other values."""
    return {**values, "epoch": int(values["epoch"])}


@contextmanager
def _damage_errors(path: Path) -> Iterator[None]:
    """Raises StorageError if the file cannot be read, or was not written by a grid."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StorageError(f"{path} is not a result of this grid: remove it to evaluate the run again.") from error

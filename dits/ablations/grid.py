"""The ablation grid: every variant trained with several seeds on cached features, measured on the test split.

Each run's result is a file of its own in the output folder, so an interrupted grid goes on where it stopped, and two
tables that share a variant share its runs.
"""

import json
from collections.abc import Callable, Iterator, Sequence
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
from dits.training.trainer import PairData, TrainingConfig, pair_data, train, validate

Report = Callable[[str], None]


@dataclass(frozen=True)
class Splits:
    """The embedded splits: training, what chooses the epoch (the training's `select_on`), and what is only measured.

    `key` names what they were made from: the numbers themselves depend on the number of threads in their last bits.
    """

    train: PairData
    validation: PairData
    test: PairData
    key: str


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


def embedded_splits(parts: Sequence[Corpus], corpus: Corpus, encoder: Encoder, embeddings: CorpusEmbeddings) -> Splits:
    """The embedded splits of a corpus: `parts` are its training split, what chooses, and what is measured.

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
        self.starts: set[str] = set()  # keys of the variants that others start from

    def outcome(self, variant: Variant, seed: int) -> Outcome:
        path = self._path(variant, seed, ".json")
        if path.is_file():
            return _read(path, self.splits.test)
        trained, best = self._trained(variant, seed)
        test = self.splits.test
        scores = build_gallery(trained, test.frames).scores(test.texts).numpy()
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
            with _damage(weights):
                model.load_state_dict(load_file(weights))
            with _damage(record):
                return model.eval(), _record(json.loads(record.read_text(encoding="utf-8")))
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
        key = [variant.key, asdict(self.training) | {"seed": seed}, self.model.as_dict(), self.splits.key]
        return self.folder / f"{variant.method}-{sha256_of_json(key)[:12]}-{seed}{suffix}"


def _write(path: Path, outcome: Outcome) -> None:
    ranks = {"t2v": outcome.t2v_ranks.tolist(), "v2t": outcome.v2t_ranks.tolist()}
    write_json(path, {"validation": outcome.validation, "ranks": ranks})


def _read(path: Path, test: PairData) -> Outcome:
    with _damage(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        t2v, v2t = (np.array(values["ranks"][name], np.float64) for name in ("t2v", "v2t"))
        if (t2v.shape, v2t.shape) != ((len(test.texts),), (len(np.unique(test.video_of)),)):
            raise ValueError("ranks of other data")
        return Outcome(t2v, v2t, _record(values["validation"]))


def _record(values: Any) -> dict[str, Any]:
    """What validation said of a run. Raises KeyError, TypeError or ValueError where that is not what it holds."""
    return {**values, "epoch": int(values["epoch"])}


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what reading a damaged file raises into one sentence.

    Raises:
        StorageError: the file cannot be read, or is none that a grid has written.
    """
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StorageError(f"{path} is no result of this grid: remove it, and it is measured again.") from error

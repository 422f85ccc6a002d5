"""What each source of pairs adds to the bundled encoder: validation with it, without it, and of it alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

from dits.bundled_encoder.config import PHOTOS, EncoderTrainingConfig
from dits.bundled_encoder.training import train_encoder
from dits.corpora.corpus import Corpus

COLUMNS = (("t2v", "R@1"), ("t2v", "R@5"), ("t2v", "R@10"), ("v2t", "R@1"))

Row = tuple[str, list[tuple[float, float]]]
"""What was trained on, and mean and standard deviation of each column over the seeds."""


def source_table(
    corpus: Corpus, pairs: Path, config: EncoderTrainingConfig, seeds: Sequence[int], report: Callable[[str], None]
) -> list[Row]:
    """Rows of all sources, of growing sets of photographs, and of all sources but one.

    The towers stay frozen and only the projections are trained (`steps` of 0), so that a row takes seconds once the
    pictures' features are kept. Measured on the corpus's validation split by mean pooling.

    Raises:
        DitsError: whatever `train_encoder` raises.
    """
    rows = []
    for label, sources in selections(config.source_names):
        values = []
        for seed in seeds:
            chosen = replace(config, sources=",".join(sources), seed=seed, steps=0)
            with TemporaryDirectory() as folder:
                best = train_encoder(corpus, pairs, Path(folder), chosen, lambda line: None)["validation"]
            values.append([best[direction][name] for direction, name in COLUMNS])
            report(f"{label}, seed {seed}: R@1 {values[-1][0]:.1f}")
        rows.append((label, [(fmean(column), _spread(column)) for column in zip(*values, strict=True)]))
    return rows


def selections(sources: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The sets of sources that the table compares, each with its label."""
    photographs = [name for name in PHOTOS if name in sources]
    growing = [photographs[: count + 1] for count in range(len(photographs))]
    rows = [("all", list(sources)), *((", ".join(names), names) for names in growing)]
    for left_out in sources:
        rest = [name for name in sources if name != left_out]
        if any(name in PHOTOS for name in rest):
            rows.append((f"all but {left_out}", rest))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in markdown."""
    heads = [name if direction == "t2v" else f"video to text {name}" for direction, name in COLUMNS]
    lines = ["| sources | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    lines += [
        f"| {label} | " + " | ".join(f"{mean:.1f} ± {spread:.1f}" for mean, spread in cells) + " |"
        for label, cells in rows
    ]
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0

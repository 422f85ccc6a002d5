"""The contribution of each source of pairs to the bundled encoder: validation with subsets of the sources."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from analysis.encoder_quality.report import spread
from dits.bundled_encoder.config import PHOTOS, EncoderTrainingConfig
from dits.bundled_encoder.training import train_encoder
from dits.corpora.corpus import Corpus

COLUMNS = (("t2v", "R@1"), ("t2v", "R@5"), ("t2v", "R@10"), ("v2t", "R@1"))

Row = tuple[str, list[tuple[float, float]]]
"""The training sources, and mean and standard deviation of each column over the seeds."""


def source_table(
    corpus: Corpus, pairs: Path, config: EncoderTrainingConfig, seeds: Sequence[int], report: Callable[[str], None]
) -> list[Row]:
    """Rows for all sources, for growing sets of photographs, and for all sources but one.

    The towers are frozen and only the projections are trained (`steps` of 0), so a row needs only seconds once the
    pictures' features are cached. The measures are those of mean pooling on the corpus's validation split.

    Raises:
        DitsError: see `train_encoder`.
    """
    rows = []
    for label, sources in selections(config.source_names):
        values = []
        for seed in seeds:
            chosen = replace(config, sources=",".join(sources), seed=seed, steps=0)
            with TemporaryDirectory() as folder:
                best = train_encoder([corpus], pairs, Path(folder), chosen, lambda line: None)["validation"]
            values.append([best[direction][name] for direction, name in COLUMNS])
            report(f"{label}, seed {seed}: R@1 {values[-1][0]:.1f}")
        rows.append((label, [(fmean(column), spread(column)) for column in zip(*values, strict=True)]))
    return rows


def selections(sources: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The sets of sources in the table, with their labels."""
    photographs = [name for name in PHOTOS if name in sources]
    growing = [photographs[: count + 1] for count in range(len(photographs))]
    rows = [("all", list(sources)), *((", ".join(names), names) for names in growing)]
    for excluded in sources:
        rest = [name for name in sources if name != excluded]
        if any(name in PHOTOS for name in rest):
            rows.append((f"all but {excluded}", rest))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a markdown table."""
    heads = [name if direction == "t2v" else f"video to text {name}" for direction, name in COLUMNS]
    lines = ["| sources | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    lines += [
        f"| {label} | " + " | ".join(f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in cells) + " |"
        for label, cells in rows
    ]
    return "\n".join(lines)

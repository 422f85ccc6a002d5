"""The report of an ablation grid: tables in Markdown, the same numbers as CSV, and a figure."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from dits.ablations.grid import Outcome, Results, Splits
from dits.ablations.tables import Row, Table
from dits.common.files import atomic_path
from dits.evaluation.metrics import metrics_of
from dits.evaluation.significance import BootstrapConfig, compare
from dits.training.trainer import TrainingConfig

PAPER_CORPUS, PAPER_ENCODER = "msrvtt", "ViT-B-32"  # the paper's numbers are only shown for these

_METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR")


@dataclass(frozen=True)
class About:
    """The source of a report: the names of corpus, split and encoder, and the command."""

    corpus: str
    split: str
    encoder: str
    command: str


def write_report(
    folder: Path,
    tables: Sequence[Table],
    results: Results,
    splits: Splits,
    training: TrainingConfig,
    seeds: Sequence[int],
    about: About,
) -> Path:
    """Writes report.md, results.csv and figure.svg into the folder, and returns the report's path.

    Raises:
        StorageError: the folder cannot be written.
    """
    with_paper = (
        about.corpus.startswith(f"{PAPER_CORPUS}:") and about.split == "test" and PAPER_ENCODER in about.encoder
    )
    parts = [_heading(splits, training, seeds, about)]
    parts += [_table(table, results, splits.test.video_of, with_paper) for table in tables]
    _write(folder / "report.md", "\n".join(parts))
    _write(folder / "results.csv", _csv(tables, results, seeds))
    _figure(folder / "figure.svg", tables, results)
    return folder / "report.md"


def _heading(splits: Splits, training: TrainingConfig, seeds: Sequence[int], about: About) -> str:
    test = splits.test
    settings = ", ".join(f"{name} {value}" for name, value in asdict(training).items() if name != "seed")
    return f"""# Ablations on {about.corpus}

Text to video on the {about.split} split: {len(test.frames)} videos, {len(test.texts)} queries. Encoder
{about.encoder},
fixed. Trained on {len(splits.train.texts)} captions of {len(splits.train.frames)} videos; the epoch is chosen on
{len(splits.validation.texts)} captions of {len(splits.validation.frames)} {training.select_on} videos. Mean and
standard deviation over {len(seeds)} seeds.

The difference is that of the R@1, averaged over the seeds, to the first row of the table. Its 95 % interval is a
bootstrap over the split's videos, as captions of one video are not independent. If it contains 0, these data show no
difference between the two rows.

Command: `{about.command}`

Training: {settings}.

![R@1 of every row, one dot per seed](figure.svg)
"""


def _table(table: Table, results: Results, video_of: np.ndarray, with_paper: bool) -> str:
    head = ["", *_METRICS, "v2t R@1", "difference", *([f"paper: {name}" for name in _METRICS] if with_paper else [])]
    lines = [f"## {table.title}", "", f"Source: {table.source}.", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    first = results.outcomes.get(table.rows[0].variant.key)
    for number, row in enumerate(table.rows):
        runs = results.outcomes.get(row.variant.key)
        if runs is None:
            cells = [f"failed: {results.failures.get(row.variant.key, 'not run')}", *[""] * 6]
        else:
            cells = [_mean_and_spread(values) for values in _by_metric(runs)]
            cells.append(_difference(runs, first, video_of) if number and first else "")
        if with_paper:
            cells += [f"{value:.1f}" for value in row.paper] if row.paper else [""] * 5
        lines.append("| " + " | ".join([row.label, *cells]) + " |")
    if table.note:
        lines += ["", table.note]
    return "\n".join([*lines, ""])


def _by_metric(runs: Sequence[Outcome]) -> list[list[float]]:
    """The values of each text-to-video metric over the runs, then those of the video-to-text R@1."""
    t2v = [metrics_of(run.t2v_ranks).as_dict() for run in runs]
    v2t = [metrics_of(run.v2t_ranks).as_dict()["R@1"] for run in runs]
    return [[metrics[name] for metrics in t2v] for name in _METRICS] + [v2t]


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _difference(runs: Sequence[Outcome], first: Sequence[Outcome], video_of: np.ndarray) -> str:
    """The difference in R@1 and its interval; the bootstrap draws a video with its captions and all seeds."""
    ranks, reference = (np.concatenate([run.t2v_ranks for run in group]) for group in (runs, first))
    result = compare(ranks, reference, np.tile(video_of, len(runs)), BootstrapConfig()).differences["R@1"]
    return f"{result.value:+.1f} [{result.low:+.1f}, {result.high:+.1f}]"


def _csv(tables: Sequence[Table], results: Results, seeds: Sequence[int]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["table", "row", "seed", "epoch", *_METRICS, "v2t R@1"])
    for table in tables:
        for row in table.rows:
            for seed, run in zip(seeds, results.outcomes.get(row.variant.key, []), strict=False):
                values = [f"{metric[0]:.3f}" for metric in _by_metric([run])]
                writer.writerow([table.title, row.label, seed, run.validation["epoch"], *values])
    return stream.getvalue()


def _figure(path: Path, tables: Sequence[Table], results: Results) -> None:
    """R@1 of every row: the mean as a bar, one dot per seed; the mean of a table's first row as a vertical line."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = sum(len(table.rows) for table in tables)
    figure = Figure(figsize=(8, 0.9 + 0.27 * rows + 0.5 * len(tables)), layout="constrained")
    heights = [len(table.rows) + 1 for table in tables]
    axes = figure.subplots(len(tables), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, table in zip(axes, tables, strict=True):
        _panel(axis, table, results)
    axes[-1].set_xlabel("R@1, text to video")
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "dits"}):  # so that equal numbers give equal files
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _panel(axis: Any, table: Table, results: Results) -> None:
    def values(row: Row) -> list[float]:
        return _by_metric(results.outcomes[row.variant.key])[0] if row.variant.key in results.outcomes else []

    first = values(table.rows[0])
    if first:
        axis.axvline(fmean(first), color="0.75", linewidth=1, zorder=0)
    for height, row in enumerate(table.rows):
        recalls = values(row)
        axis.plot(recalls, [height] * len(recalls), "o", color="#0072B2", markersize=3.5, alpha=0.55)
        if recalls:
            axis.plot([fmean(recalls)], [height], "|", color="#D55E00", markersize=13, markeredgewidth=2)
    axis.set_yticks(range(len(table.rows)), [row.label for row in table.rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(table.title, fontsize=9, loc="left", fontweight="bold")
    axis.tick_params(axis="x", labelsize=8)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")

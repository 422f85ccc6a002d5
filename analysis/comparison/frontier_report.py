"""The files of a frontier: README.md, frontier.csv, and the figure as a page and as SVG."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from analysis.comparison.frontier import REFERENCE, Point, chosen
from analysis.comparison.frontier_figure import frontier_figure, write_svg
from analysis.comparison.markdown import bullets, filled, listed, table
from analysis.comparison.report import About
from analysis.comparison.runs import Plan, Run
from analysis.comparison.statistics import RECALLS_AT, Estimate
from analysis.figures.export import figure_html
from dits.common.files import atomic_path, write_csv

_METRICS = (*(f"R@{k}" for k in RECALLS_AT), "recalls")

COLUMNS = (
    "setting", "sweep", "value",
    *(f"{name}{end}" for name in _METRICS for end in ("", " low", " high")),
    "closed", "closed low", "closed high", "to best", "to best low", "to best high", "candidate", "chosen",
)  # fmt: skip


def write_frontier(
    folder: Path,
    plan: Plan,
    points: Sequence[Point],
    failures: Sequence[tuple[Run, str]],
    mode: str,
    seeds: Sequence[int],
    about: About,
) -> Path:
    """Writes README.md, frontier.csv, frontier.html and frontier.svg into the folder, and returns the first's path.

    Raises:
        StorageError: the folder cannot be written.
    """
    best = chosen(points)
    write_csv(folder / "frontier.csv", COLUMNS, [_row(point, best) for point in points])
    write_svg(folder / "frontier.svg", points, best)
    title = f"Alignment and ranking on {about.corpus}"
    _write(folder / "frontier.html", figure_html(frontier_figure(points, best), title))
    _write(folder / "README.md", _page(plan, points, best, failures, mode, seeds, about))
    return folder / "README.md"


def _page(
    plan: Plan,
    points: Sequence[Point],
    best: Point,
    failures: Sequence[tuple[Run, str]],
    mode: str,
    seeds: Sequence[int],
    about: About,
) -> str:
    corpus = plan.corpus
    train, validation = (
        f"{len(part.captions):,} captions of {len(part.videos):,} videos" for part in (corpus.train, corpus.validation)
    )
    encoder = "its projections are trained too" if mode == "joint" else "frozen"
    training = {
        name: value for name, value in asdict(plan.training).items() if name not in ("seed", "alignment_weight")
    }
    parts = [
        f"# Alignment and ranking on {about.corpus}",
        filled(
            "How well DITS ranks on the validation split, text to video, and how much of the gap it closes there: once "
            "for several weights of an alignment term in the loss (the mean of 1 - cosine of the aligned text and its "
            "own video) without noise, and once for several scales of the paper's noise in training without the term."
        ),
        bullets(
            f"Validation: {validation}. Training: {train}.",
            f"Encoder: {corpus.encoder}, {encoder}.",
            f"Seeds: {', '.join(map(str, seeds))}; all values are means over them.",
            *(f"Failed: {run.label}: {reason}" for run, reason in failures),
        ),
        f"Command: `{about.command}`",
        "![Recall against the closed share of the gap](frontier.svg)",
        "The same figure [as a page](frontier.html), and its numbers [as a table](frontier.csv).",
        _table(points, best),
        "## The chosen point",
        filled(
            f"**{best.setting.entry.title}**: it closes {100 * best.closed.value:.1f} % of the distance of the "
            f"centroids. Its R@1 is {_interval(best.ranking['R@1'])}."
            + "".join(
                f" Its sum of the three recalls minus that of {title} is {_interval(Estimate.of(difference))}."
                for title, difference in best.to_references.items()
            )
        ),
        filled(
            "It closes most among the settings of the two sweeps that rank as well as the best one, within the noise "
            "of the data. A setting ranks within the noise of the best if the 95 % interval of the difference of their "
            "sums of R@1, R@5 and R@10 includes 0. The difference is paired: the bootstrap draws the videos, each with "
            "all its captions, and averages every caption over the seeds. Mean pooling and X-Pool are drawn for "
            "comparison, and cannot be chosen."
        ),
        "## How to read it",
        bullets(
            "The share is that of the distance between the centroid of the texts and the centroid of the videos (means "
            "of frames), on unit vectors, compared with the frozen encoder's. It is 0 if the texts do not move, and "
            "below 0 if the distance grows. Its interval, in the table of numbers, is Student's, over the seeds.",
            "The epoch of a run is chosen on the same split, in the same way for every setting, so all recalls are "
            "slightly high.",
            "Intervals of recalls show how much other videos would change them, not other seeds.",
        ),
        filled(f"Training: {listed(training)}."),
    ]
    return "\n\n".join(parts)


def _table(points: Sequence[Point], best: Point) -> str:
    head = ["", "R@1", "R@5", "R@10", "sum, to the best", "centroids closed", ""]
    rows = []
    for point in points:
        mark = "chosen" if point is best else "within the noise" if point.is_candidate else ""
        if point.setting.sweep == REFERENCE:
            mark = "reference"
        rows.append(
            [
                point.setting.entry.title,
                *(_interval(point.ranking[f"R@{k}"]) for k in RECALLS_AT),
                _interval(Estimate.of(point.to_best)),
                f"{100 * point.closed.value:.1f} %",
                mark,
            ]
        )
    return table(head, rows)


def _row(point: Point, best: Point) -> list[object]:
    estimates = [*(point.ranking[name] for name in _METRICS), point.closed, Estimate.of(point.to_best)]
    return [
        point.setting.entry.name,
        point.setting.sweep,
        "" if point.setting.value is None else point.setting.value,
        *(_finite(value) for estimate in estimates for value in (estimate.value, estimate.low, estimate.high)),
        int(point.is_candidate),
        int(point is best),
    ]


def _finite(value: float) -> float | str:
    """A number for a table; empty if an interval has no limit."""
    return value if math.isfinite(value) else ""


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")

"""The files of a comparison: README.md in plain words, results.csv with a row for every seed, and summary.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.comparison.claims import FAILS, HOLDS, NOT_TESTED, UNKNOWN
from analysis.comparison.markdown import bullets, filled, listed
from analysis.comparison.methods import Entry, stages_of
from analysis.comparison.runs import Plan, Run
from analysis.comparison.summary import COLUMNS, Comparison
from analysis.comparison.tables import (
    PAIRS,
    claims_table,
    gap_table,
    leak_table,
    movement_table,
    ranking_table,
    time_table,
    verdict_counts,
)
from analysis.measures.gap import MEASURES
from dits.common.files import atomic_path, write_csv, write_json
from dits.evaluation.significance import BootstrapConfig

_MODES = {
    "frozen": "Frozen: the encoder's embeddings are fixed",
    "joint": "Joint: the projections of the encoder's towers are trained with the method",
}
_CHOOSING = ("train", "validation")
_DIRECTIONS = {"t2v": "Text to video", "v2t": "Video to text"}


@dataclass(frozen=True)
class About:
    """The name of the corpus without its folder, and the command that reproduces the report."""

    corpus: str
    command: str


def write_comparison(
    folder: Path,
    plan: Plan,
    entries: Sequence[Entry],
    results: Sequence[dict[str, Any]],
    failures: Sequence[tuple[Run, str]],
    seeds: Sequence[int],
    about: About,
    bootstrap: BootstrapConfig,
) -> Path:
    """Writes README.md, results.csv and summary.json into the folder, and returns the path of the first.

    None of them holds a caption, an id of a video, an embedding, or a value of a single caption.

    Raises:
        StorageError: the folder cannot be written.
    """
    comparison = Comparison(plan, entries, results, bootstrap)
    failed = [f"{run.label}: {reason}" for run, reason in failures]
    summary = _facts(plan, entries, seeds, about, bootstrap) | comparison.summary() | {"failures": failed}
    write_json(folder / "summary.json", summary)
    write_csv(folder / "results.csv", COLUMNS, comparison.rows())
    path = folder / "README.md"
    with atomic_path(path) as temporary:
        temporary.write_text(page(summary), encoding="utf-8")
    return path


def page(summary: dict[str, Any]) -> str:
    """README.md of a summary."""
    parts = [_heading(summary), _claims(summary)]
    parts += [_mode(summary, mode) for mode in summary["results"]]
    parts.append(_methods(summary))
    if summary["failures"]:
        parts.append("## Failed runs\n\n" + "\n".join(f"- {line}" for line in summary["failures"]))
    return "\n\n".join(parts) + "\n"


def _facts(
    plan: Plan, entries: Sequence[Entry], seeds: Sequence[int], about: About, bootstrap: BootstrapConfig
) -> dict[str, Any]:
    corpus = plan.corpus
    splits = {"train": corpus.train, "validation": corpus.validation} | plan.queries
    return {
        "corpus": about.corpus,
        "encoder": corpus.encoder,
        "frames": corpus.frame_count,
        "splits": {name: {"captions": len(part.captions), "videos": len(part.videos)} for name, part in splits.items()},
        "queries": {name: part.title for name, part in plan.queries.items()},
        "command": about.command,
        "training": {name: value for name, value in asdict(plan.training).items() if name != "seed"},
        "network": asdict(plan.model.network),
        "seeds": list(seeds),
        "bootstrap": asdict(bootstrap),
        "methods": {
            entry.name: {
                "title": entry.title,
                "stages": [[stage.method, stage.settings, stage.training] for stage in stages_of(entry.variant)],
            }
            for entry in entries
        },
    }


def _titles(summary: dict[str, Any]) -> dict[str, str]:
    return {name: method["title"] for name, method in summary["methods"].items()}


def _heading(summary: dict[str, Any]) -> str:
    splits = summary["splits"]
    sets = "; ".join(f"{title}: {splits[name]['captions']:,}" for name, title in summary["queries"].items())
    first = next(iter(summary["queries"]))
    train, validation = (f"{splits[n]['captions']:,} captions of {splits[n]['videos']:,} videos" for n in _CHOOSING)
    return "\n\n".join(
        (
            f"# Methods compared on {summary['corpus']}",
            filled(
                "These numbers compare methods with each other, on this corpus, with a small encoder whose towers are "
                "fixed. They are not those of the benchmark's literature, and say nothing about its absolute level."
            ),
            bullets(
                f"Corpus: {summary['corpus']}. Training: {train}. Validation, which chooses the epoch: {validation}. "
                f"Test: {splits[first]['videos']:,} videos ({sets}).",
                f"{summary['frames']} frames of each video; a video with fewer repeats them.",
                f"Encoder: {summary['encoder']}.",
                f"Seeds: {', '.join(map(str, summary['seeds']))}. Values are means over seeds ± standard deviation.",
            ),
            f"Command: `{summary['command']}`",
        )
    )


def _claims(summary: dict[str, Any]) -> str:
    sets = summary["queries"]
    parts = [
        "## What the paper claims, and what holds here",
        filled(
            "The difference is that of R@1 in points, text to video, unless the claim names another measure. "
            f'"{HOLDS}": its 95 % interval is above 0. "{FAILS}": it is below 0. "{UNKNOWN}": it contains 0. The '
            "paper's numbers are R@1 on MSR-VTT 1k-A with CLIP ViT-B/32 tuned from video, for one seed; only the sign "
            "of its differences is tested."
        ),
    ]
    for mode, claims in summary["claims"].items():
        if claims:
            title = "The two modes" if mode == "both" else _MODES[mode]
            parts += [f"### {title}", verdict_counts(claims), claims_table(claims, sets)]
    parts.append(filled("Not tested here: " + "; ".join(NOT_TESTED) + "."))
    if any(summary["controls"].values()):
        parts += ["## Controls", "What the paper does not compare. The verdicts mean the same."]
    for mode, claims in summary["controls"].items():
        if claims:
            parts += [f"### Controls, {mode}", claims_table(claims, sets, with_paper=False)]
    return "\n\n".join(parts)


def _mode(summary: dict[str, Any], mode: str) -> str:
    methods, titles = summary["results"][mode], _titles(summary)
    parts = [f"## {_MODES[mode]}"]
    for name, title in summary["queries"].items():
        for direction, heading in _DIRECTIONS.items():
            parts += [f"### {heading}, {title}, {mode}", ranking_table(methods, titles, name, direction)]
    others = [name for name in MEASURES if name not in PAIRS]
    parts += [
        f"### Movement of the texts, {mode}",
        movement_table(methods, titles),
        f"### The gap, {mode}",
        gap_table(methods, titles, PAIRS),
        gap_table(methods, titles, others),
        f"### Time in milliseconds, {mode}",
        time_table(methods, titles),
        f"### What the leak would gain, {mode}",
        leak_table(methods, titles),
    ]
    return "\n\n".join(parts)


def _methods(summary: dict[str, Any]) -> str:
    training = summary["training"]
    return "\n\n".join(
        (
            "## How this was measured",
            bullets(
                f"**The same budget**: every method sees {training['epochs']} times "
                f"{training['epoch_captions'] or 'all'} captions. The diffusion model is trained in two stages, each "
                "with half of the captions: first on the gap, with the encoder frozen, then by its ranks. Mean pooling "
                "with a frozen encoder has nothing to train.",
                "**The epoch** is chosen on the validation split. The test split is used once, at the end.",
                "**Noise**: DITS draws it in training only. The fixed prior, the diffusion model and T-MASS also draw "
                "it at inference.",
                "**Ties** share their mean rank. Video to text: a video is found if any of its captions is.",
                "**Intervals and tests** draw the videos, each with all its captions and all seeds "
                f"({summary['bootstrap']['resamples']} resamples). A query's statistics are averaged over the seeds, "
                "which is the same as pooling the queries of all seeds. The tests are paired, and not corrected for "
                "their number. Differences between seeds are not in the intervals: see the standard deviations. "
                "Intervals of the closed share and of times are Student's, over seeds.",
                "**The gap** is measured on the largest query set, between unit vectors: texts t or aligned texts v_0, "
                "and the means of the frames' unit vectors. Tables show the value at t, then at v_0.",
                '**Movement**: "nearer" is the share of captions whose v_0 is nearer to its video than t, "turned" the '
                'angle from t to v_0, "centroids closed" the share of the distance between the centroids of texts and '
                "videos that v_0 closes; in the joint mode it is also compared with the frozen encoder's distance. "
                '"Pooled" are cosines with the video as the method pools it by the text, which is nearer to that text '
                "by construction.",
                "**Times** are processor time on one core. The encoder is not included: its features are computed "
                "before. A query is aligned and scored alone with the videos of the test split.",
                "**The leak** ranks one caption a video after pooling every video by its own caption, as a released "
                "evaluation of T-MASS did. No other number here is computed in this way.",
            ),
            filled(f"Training: {listed(training)}."),
            filled(f"Network: {listed(summary['network'])}."),
        )
    )

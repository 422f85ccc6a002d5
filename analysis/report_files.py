"""A report on disk: report.html, its figures, the numbers as JSON and CSV."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from analysis.figures import (
    gap_shift,
    measure_curves,
    pair_histograms,
    path_bands,
    retrieval_curve,
    similarity_heat_map,
)
from analysis.gap import MEASURES, pair_distances
from analysis.maps import drawn_flow, map_panels
from analysis.panels import Panel
from analysis.projection import KINDS
from analysis.report import Analysis
from analysis.report_page import report_page
from dits.files import atomic_path, make_folder, write_csv, write_json

_HEAT_MAP_PAIRS = 40


def write_report(folder: Path, analysis: Analysis, paths: int = 24) -> dict[str, Any]:
    """Writes the report of an analysis into a folder, and returns it as JSON values.

    report.html is one file that works offline; figures/ has each figure as a page of its own and its data as CSV;
    analysis.json has every measure at every step; steps.csv the same as a table; pairs.csv every pair's distances
    at the text and at v_0.

    Raises:
        InputError: the embeddings cannot be drawn.
        StorageError: the folder cannot be written.
    """
    report = analysis.as_dict()
    panels, maps = step_panels(analysis), map_panels(drawn_flow(analysis.flow, paths), KINDS)
    report["maps"] = {panel.name: panel.note for panel in maps}
    figures = make_folder(folder / "figures")
    write_json(folder / "analysis.json", report)
    _write_steps(folder / "steps.csv", report["steps"])
    _write_pairs(folder / "pairs.csv", analysis)
    _write_figures(figures, [*panels, *maps])
    _write_text(folder / "report.html", report_page(report, panels, maps))
    return report


def step_panels(analysis: Analysis) -> list[Panel]:
    """The figures of numbers: what changes from step to step, pair by pair, and what arithmetic does instead."""
    flow, reports = analysis.flow, analysis.reports[0]
    before = pair_distances(flow.points[0], flow.own_videos)
    distances = {"text t": before}
    panels = []
    if len(reports) > 1:
        distances["aligned v₀"] = pair_distances(flow.points[-1], flow.own_videos)
        panels = [
            Panel(
                "measures",
                "Gap measures against step",
                "Step t is the text itself, v₀ what retrieval uses. Each panel has its own scale: read the axis before "
                "the slope.",
                partial(measure_curves, reports, {name: measure.title for name, measure in MEASURES.items()}),
                wide=True,
            ),
            Panel(
                "retrieval",
                "Retrieval against step",
                "Text to video, when the point of that step stands for the text.",
                partial(retrieval_curve, reports),
            ),
            Panel(
                "paths",
                "How the texts move",
                "Median over the texts, and the bands that hold half and nine tenths of them.",
                partial(path_bands, analysis.paths),
                wide=True,
            ),
        ]
    panels.append(
        Panel(
            "pairs",
            "Distances of the pairs",
            "On unit vectors, as in Table 9 and Figures 4 to 6 of the DITS paper.",
            partial(pair_histograms, distances),
            wide=True,
        )
    )
    shifts = analysis.shifts
    panels.append(
        Panel(
            "mean-shift",
            "The gap closed by arithmetic",
            "Both clouds moved towards each other along the mean gap, ranked by the plain cosine. Whether a smaller "
            "gap ranks better is to be seen, not assumed.",
            partial(
                gap_shift,
                np.array([shift.share for shift in shifts]),
                np.array([shift.centroid_distance for shift in shifts]),
                np.array([shift.t2v.r1 for shift in shifts]),
            ),
        )
    )
    panels.append(heat_map_panel(analysis))
    return panels


def heat_map_panel(analysis: Analysis) -> Panel:
    """The scores of a batch of pairs, each of another video, at v_0."""
    flow = analysis.flow
    firsts = sorted({int(video): text for text, video in reversed(list(enumerate(flow.video_of)))}.values())
    batch = flow.of_texts(np.array(firsts[:_HEAT_MAP_PAIRS]))
    scores = batch.scores_at(len(batch.points) - 1)[:, batch.video_of]
    return Panel(
        "similarity",
        "Similarity of a batch",
        "Texts in rows, their videos in the same order in columns: the marked diagonal holds the pairs.",
        partial(similarity_heat_map, scores, batch.texts),
    )


def _write_steps(path: Path, steps: Sequence[dict[str, Any]]) -> None:
    metrics, measured = list(steps[0]["t2v"]), list(steps[0]["path"])
    write_csv(
        path,
        ["step", "timestep", *MEASURES, *metrics, *(f"mean {name}" for name in measured)],
        (
            [step["step"], step["timestep"], *(step[name] for name in MEASURES),
             *(step["t2v"][name] for name in metrics), *(step["path"][name]["mean"] for name in measured)]
            for step in steps
        ),
    )  # fmt: skip


def _write_pairs(path: Path, analysis: Analysis) -> None:
    flow = analysis.flow
    ends = [pair_distances(flow.points[step], flow.own_videos) for step in (0, -1)]
    columns = [getattr(distances, name) for distances in ends for name in ("l2", "l1", "cosine")]
    names = [f"{name} {end}" for end in ("t", "v_0") for name in ("l2", "l1", "cosine")]
    videos = [flow.video_ids[video] for video in flow.video_of]
    write_csv(path, ["text", "video", *names], zip(flow.texts, videos, *(c.tolist() for c in columns), strict=True))


def _write_figures(folder: Path, panels: Sequence[Panel]) -> None:
    """Each figure as a page beside one copy of plotly.js, which all of them load."""
    _write_text(folder / "plotly.min.js", get_plotlyjs())
    for panel in panels:
        page = panel.figure.to_html(include_plotlyjs="plotly.min.js", full_html=True)
        _write_text(folder / f"{panel.name}.html", page)
        _write_text(folder / f"{panel.name}.csv", panel.csv)


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

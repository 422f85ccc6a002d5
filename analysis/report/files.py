"""The files of a report: report.html, its figures, and its numbers as JSON and CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from analysis.figures.map_panels import drawn_flow, map_panels
from analysis.figures.panels import Panel
from analysis.measures.analysis import Analysis
from analysis.measures.gap import MEASURES, pair_distances
from analysis.projections.projection import KINDS
from analysis.report.page import report_page
from analysis.report.panels import step_panels
from dits.common.files import atomic_path, make_folder, write_csv, write_json


def write_report(folder: Path, analysis: Analysis, paths: int = 24) -> dict[str, Any]:
    """Write the report of an analysis into a folder, and return it as JSON values.

    report.html is one file that works offline. figures/ has each figure as a page and its data as CSV. analysis.json
    has all measures at every step, and steps.csv has them as a table. pairs.csv has every pair's distances at the text
    and at v_0.

    Args:
        paths: maximum number of trajectories on maps.

    Raises:
        InputError: the embeddings cannot be mapped.
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
    """Writes each figure as a page, with one copy of plotly.js for all."""
    _write_text(folder / "plotly.min.js", get_plotlyjs())
    for panel in panels:
        page = panel.figure.to_html(include_plotlyjs="plotly.min.js", full_html=True)
        _write_text(folder / f"{panel.name}.html", page)
        _write_text(folder / f"{panel.name}.csv", panel.csv)


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

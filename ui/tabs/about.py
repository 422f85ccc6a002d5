"""The tab "About": the method, the data, the results and the limits of the page (about.html).

All results are read from the reports, and all counts from the captions, when the app starts.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr
import numpy as np

from dits.common.errors import DitsError
from dits.common.files import ASSETS
from dits.corpora.corpus import read_rows
from ui.web import WEB

ROOT = ASSETS.parent
CAPTIONS = ASSETS / "demo" / "captions.csv"
GAP_REPORTS = {"DITS": "dits", "DITS trained by L2": "dits-l2"}
"""Folders of reports/gap by their titles on the page."""

_COLUMNS = ("R@1", "R@5", "R@10", "v2t R@1")
_SPLITS = {"train": "for training", "validation": "for selection", "test": "for testing"}


def build_about_tab() -> None:
    """Build the tab."""
    gr.HTML(about_html(), js_on_load=None, elem_id="about")


def about_html(root: Path = ROOT) -> str:
    """Return the HTML of the tab, from the README and the reports of the repository at `root`."""
    page = Template((WEB / "about.html").read_text(encoding="utf-8"))
    entry = citation(root / "README.md")
    cited = f'<pre tabindex="0" role="region" aria-label="BibTeX">{escape(entry)}</pre>' if entry else ""
    return page.substitute(**_counts(), tables=_tables(root / "reports"), citation=cited)


def shipped_table(reports: dict[str, dict[str, Any]]) -> str:
    """Return the table of the gap under the page's weights, from analysis.json of several methods by their titles."""
    first = next(iter(reports.values()))
    steps = {"text t, ranked by X-Pool": first["steps"][0]}
    steps |= {f"v₀ of {title}": report["steps"][-1] for title, report in reports.items()}
    rows = [
        (name, f"{step['t2v']['R@1']:.1f}", _interval(step, "cosine"), _interval(step, "centroid_distance"))
        for name, step in steps.items()
    ]
    title = f"This page's weights on {first['videos']} clips and {first['pairs']} captions"
    return _table(title, ("embedding", "R@1", "cosine to its clip", "distance of the means"), rows)


def seeds_table(file: Path) -> str:
    """Return the table of methods from results.csv of `dits ablate`: mean and standard deviation over seeds.

    Raises:
        InputError: the file cannot be read, or a column is missing.
    """
    runs: dict[str, list[list[float]]] = defaultdict(list)
    for row in read_rows(file, ("table", "row", *_COLUMNS)):
        if row["table"] == "Methods":
            runs[row["row"]].append([float(row[column]) for column in _COLUMNS])
    rows = [(name, *map(_spread, zip(*values, strict=True))) for name, values in runs.items()]
    seeds = max(map(len, runs.values()))
    return _table(f"The paper's methods, retrained with {seeds} seeds", ("method", *_COLUMNS), rows)


def citation(readme: Path) -> str:
    """Return the BibTeX entry under the README's heading Citation, or "" if there is none."""
    try:
        _, _, rest = readme.read_text(encoding="utf-8").partition("\n## Citation\n")
    except OSError:
        return ""
    _, _, entry = rest.partition("```bibtex\n")
    return entry.partition("\n```")[0]


def _counts() -> dict[str, Any]:
    """The numbers of clips and captions."""
    clips: dict[str, set[str]] = defaultdict(set)
    rows = read_rows(CAPTIONS, ("clip", "split"))
    for row in rows:
        clips[row["split"]].add(row["clip"])
    splits = ", ".join(f"{len(clips[split])} {use}" for split, use in _SPLITS.items())
    return {"clips": sum(map(len, clips.values())), "captions": f"{len(rows):,}", "splits": splits}


def _tables(reports: Path) -> str:
    try:
        gap_reports = {
            title: json.loads((reports / "gap" / name / "analysis.json").read_text(encoding="utf-8"))
            for title, name in GAP_REPORTS.items()
        }
        return shipped_table(gap_reports) + seeds_table(reports / "ablation" / "results.csv")
    except (OSError, DitsError):
        return "<p>The reports are not part of this installation. They are in reports/ in the repository.</p>"


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td class=number>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return (
        f'<div class="numbers"><div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _spread(values: Sequence[float]) -> str:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1f}" + (f" ± {deviation:.1f}" if deviation else "")


def _interval(step: dict[str, Any], measure: str) -> str:
    """A measure with its 95 % interval."""
    low, high = step["intervals"][measure]
    return f"{step[measure]:.3f}<small>{low:.3f} to {high:.3f}</small>"

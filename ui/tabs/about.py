"""The tab "About": the method, the data, what was measured, and what the page cannot do (about.html).

Numbers are read from the reports, and counts from the captions, when the app starts: none is written there.
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
"""Folders of reports/gap, by what the page calls them."""

_COLUMNS = ("R@1", "R@5", "R@10", "v2t R@1")
_SPLITS = {"train": "to train on", "validation": "to choose settings by", "test": "to measure on"}


def build_about_tab() -> None:
    """Lays the tab out."""
    gr.HTML(about_html(), js_on_load=None, elem_id="about")


def about_html(root: Path = ROOT) -> str:
    """All of it, with the README and the reports of the repository at `root`."""
    page = Template((WEB / "about.html").read_text(encoding="utf-8"))
    entry = citation(root / "README.md")
    cited = f'<pre tabindex="0" role="region" aria-label="BibTeX">{escape(entry)}</pre>' if entry else ""
    return page.substitute(**_counts(), tables=_tables(root / "reports"), citation=cited)


def shipped_table(reports: dict[str, dict[str, Any]]) -> str:
    """What the page's weights do to the gap: `dits analyse`'s analysis.json of several methods, by their titles."""
    first = next(iter(reports.values()))
    steps = {"the sentence as it is, ranked by X-Pool": first["steps"][0]}
    steps |= {f"where {title} moves it": report["steps"][-1] for title, report in reports.items()}
    rows = [
        (name, f"{step['t2v']['R@1']:.1f}", _interval(step, "cosine"), _interval(step, "centroid_distance"))
        for name, step in steps.items()
    ]
    title = f"This page's weights, over {first['videos']} clips and {first['pairs']} captions"
    return _table(title, ("the point", "R@1", "cosine to its clip", "sentences and clips apart"), rows)


def seeds_table(file: Path) -> str:
    """The methods of `dits ablate`'s results.csv: mean and standard deviation over seeds.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    runs: dict[str, list[list[float]]] = defaultdict(list)
    for row in read_rows(file, ("table", "row", *_COLUMNS)):
        if row["table"] == "Methods":
            runs[row["row"]].append([float(row[column]) for column in _COLUMNS])
    rows = [(name, *map(_spread, zip(*values, strict=True))) for name, values in runs.items()]
    seeds = max(map(len, runs.values()))
    return _table(f"The paper's methods, trained anew with {seeds} seeds", ("method", *_COLUMNS), rows)


def citation(readme: Path) -> str:
    """The BibTeX entry under the README's heading Citation; empty where there is none."""
    try:
        _, _, rest = readme.read_text(encoding="utf-8").partition("\n## Citation\n")
    except OSError:
        return ""
    _, found, entry = rest.partition("    @")
    lines = (found + entry).split("\n\n")[0].splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)


def _counts() -> dict[str, Any]:
    """How many clips and captions there are."""
    clips: dict[str, set[str]] = defaultdict(set)
    rows = read_rows(CAPTIONS, ("clip", "split"))
    for row in rows:
        clips[row["split"]].add(row["clip"])
    splits = ", ".join(f"{len(clips[split])} {use}" for split, use in _SPLITS.items())
    return {"clips": sum(map(len, clips.values())), "captions": f"{len(rows):,}", "splits": splits}


def _tables(reports: Path) -> str:
    try:
        found = {
            title: json.loads((reports / "gap" / name / "analysis.json").read_text(encoding="utf-8"))
            for title, name in GAP_REPORTS.items()
        }
        return shipped_table(found) + seeds_table(reports / "ablation" / "results.csv")
    except (OSError, DitsError):
        return "<p>The reports are not part of this installation: they are in reports/, in the repository.</p>"


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

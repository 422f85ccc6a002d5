"""The numbers of the analysis tabs, as HTML. Everything that a corpus or a visitor wrote is escaped."""

from collections.abc import Sequence
from html import escape

import numpy as np

from analysis.flow import Flow
from analysis.gap import MEASURES
from analysis.report import Analysis
from analysis.trajectory import path_measures, ranks_by_step
from dits.corpus import Clip, Corpus
from dits.demo import strip_path
from dits.model import METHODS
from ui.results import file_url

_TOP = 3
_METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR")
_ROWS = {
    "cosine_to_start": "cosine to the sentence",
    "cosine_to_target": "cosine to the clip followed",
    "cosine_to_distractor": "cosine to the nearest other clip",
    "gap_closed": "share of the distance closed",
    "step_length": "length of the step",
}


def gap_html(analyses: Sequence[Analysis]) -> str:
    """The table of measures: at the text, and at v_0 under each method, each with its bootstrap interval."""
    flow = analyses[0].flow
    heads = "".join(f"<th scope='col'>{_method(analysis)}</th>" for analysis in analyses)
    rows = [
        f"<tr><th scope='row'>{escape(measure.title)}<small>{escape(measure.reading)}</small></th>"
        f"{_gap_cell(analyses[0], name, 0)}{''.join(_gap_cell(a, name, -1) for a in analyses)}</tr>"
        for name, measure in MEASURES.items()
    ]
    metrics = [
        f"<tr><th scope='row'>Text to video {name}</th>"
        f"{_metric_cells(analyses[0], name, 0)}{''.join(_metric_cells(a, name, -1) for a in analyses)}</tr>"
        for name in _METRICS
    ]
    return (
        f'<section class="numbers"><p role="status">{len(flow.texts)} sentences, {len(flow.videos)} clips. Retrieval '
        f"first: a smaller gap need not rank better. Under a number, its 95 % bootstrap interval over clips.</p>"
        f'<div class="scroll"><table><thead><tr><th scope="col">measure</th><th scope="col">text t, as {_method(analyses[0])} '
        f"ranks it</th>{heads}</tr></thead><tbody>{''.join(metrics + rows)}</tbody></table></div></section>"
    )


def way_html(flow: Flow, corpus: Corpus) -> str:
    """What each step of one sentence's way does, and the clips that lead at each, as a table with a column a step."""
    measured, ranks = path_measures(flow), ranks_by_step(flow, 0)
    steps = [_step_name(step, len(flow.points)) for step in range(len(flow.points))]
    rows = [_row(label, [f"{value:.3f}" for value in measured[name][:, 0]]) for name, label in _ROWS.items()]
    leaders = [np.argsort(row)[:_TOP] for row in ranks]
    for place in range(min(_TOP, len(corpus))):
        rows.append(_row(f"place {place + 1}", [_clip(corpus.clips[row[place]]) for row in leaders], "clip"))
    heads = "".join(f"<th scope='col'>{name}</th>" for name in steps)
    target = corpus.clips[flow.video_of[0]]
    return (
        f'<section class="numbers"><p role="status">{_verdict(flow, ranks, measured)} The clip followed is the one that '
        f"comes first at the end: <q>{escape(target.captions[0])}</q></p>"
        f'<div class="scroll"><table class="way"><thead><tr><th scope="col">step</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def clips_html(clips: Sequence[Clip], neighbours: str = "") -> str:
    """The clips of chosen points, playing, above their neighbours."""
    cells = "".join(
        f'<li><video src="{escape(file_url(clip.path))}" muted loop autoplay playsinline preload="metadata"></video>'
        f"<span>{escape(clip.captions[0])}</span></li>"
        for clip in clips
    )
    return f'<section class="chosen"><h3>Chosen points</h3><ul>{cells}</ul>{neighbours}</section>'


def neighbours_html(of: str, videos: Sequence[tuple[str, float]], texts: Sequence[tuple[str, float]]) -> str:
    """A point's nearest clips and sentences in the full space, with their cosines."""
    columns = "".join(
        f"<div><h4>Nearest {kind}</h4><ol>"
        + "".join(f"<li>{escape(name)} <b>{cosine:.3f}</b></li>" for name, cosine in found)
        + "</ol></div>"
        for kind, found in (("clips", videos), ("sentences", texts))
    )
    return f'<p>In the full space, not on the map, nearest to {escape(of)}:</p><div class="columns">{columns}</div>'


def _verdict(flow: Flow, ranks: np.ndarray, measured: dict[str, np.ndarray]) -> str:
    """The way in one sentence."""
    moved, closed = measured["cosine_to_start"][-1, 0], measured["gap_closed"][-1, 0]
    overtaken = int((ranks[0] != ranks[-1]).sum())
    return (
        f"{len(flow.points) - 1} steps move the sentence to a cosine of {moved:.3f} with where it was and close "
        f"{closed:.1%} of the distance; {overtaken} of {ranks.shape[1]} clips change places."
    )


def _step_name(step: int, points: int) -> str:
    if step == 0:
        return "t"
    return "v₀" if step == points - 1 else str(step)


def _row(label: str, cells: Sequence[str], kind: str = "number") -> str:
    body = "".join(f'<td class="{kind}">{cell}</td>' for cell in cells)
    return f"<tr><th scope='row'>{label}</th>{body}</tr>"


def _clip(clip: Clip) -> str:
    caption, strip = escape(clip.captions[0]), strip_path(clip.path)
    if not strip.is_file():
        return f"<small>{caption}</small>"
    return f'<img src="{escape(file_url(strip))}" alt="{caption}" title="{caption}" loading="lazy">'


def _method(analysis: Analysis) -> str:
    return escape(METHODS[analysis.flow.method].title)


def _gap_cell(analysis: Analysis, name: str, step: int) -> str:
    at = step % len(analysis.flow.points)
    value = f"{getattr(analysis.reports[0][at].gap, name):.3f}"
    bounds = analysis.intervals.get(at, {}).get(name)
    spread = f"<small>{bounds[0]:.3f} to {bounds[1]:.3f}</small>" if bounds else ""
    return f'<td class="number">{value}{spread}</td>'


def _metric_cells(analysis: Analysis, name: str, step: int) -> str:
    return f'<td class="number">{analysis.reports[0][step].t2v.as_dict()[name]:.1f}</td>'

"""The tables of the analysis tabs as HTML. All text from corpora and visitors is escaped."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import torch
import torch.nn.functional as F

from analysis.figures.map_panels import DrawnFlow
from analysis.figures.style import step_names
from analysis.flow import Flow
from analysis.measures.analysis import Analysis
from analysis.measures.gap import MEASURES
from analysis.measures.trajectory import path_measures, ranks_by_step
from analysis.projections.projection import nearest
from dits.corpora.corpus import Clip, Corpus
from ui.components.panels import Choice
from ui.components.results import UNPLAYED, picture_html, video_html
from ui.services.media import CORPUS_MEDIA, Media

_TOP = 3
_LEADING = 10
_NEIGHBOURS = 5
_METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR")
_ROWS = {  # labels and decimal places
    "cosine_to_start": ("cosine to the query", 4),
    "cosine_to_target": ("cosine to the clip followed", 3),
    "cosine_to_distractor": ("cosine to the nearest other clip", 3),
    "gap_closed": ("share of the distance closed", 3),
    "step_length": ("length of the step", 3),
}


def gap_html(titled: Mapping[str, Analysis]) -> str:
    """Return the table of measures at the text and at v_0 of each titled method, with bootstrap intervals."""
    titles, analyses = [escape(title) for title in titled], list(titled.values())
    flow = analyses[0].flow
    heads = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    rows = [
        f"<tr class='measured'><th scope='row'>{escape(measure.title)}</th>{_gap_cell(analyses[0], name, 0)}"
        f"{''.join(_gap_cell(a, name, -1) for a in analyses)}</tr>"
        f"<tr><td class='reading' colspan='{2 + len(analyses)}'>{escape(measure.reading)}</td></tr>"
        for name, measure in MEASURES.items()
    ]
    metrics = [
        f"<tr><th scope='row'>Text to video {name}</th>"
        f"{_metric_cells(analyses[0], name, 0)}{''.join(_metric_cells(a, name, -1) for a in analyses)}</tr>"
        for name in _METRICS
    ]
    return (
        f'<section class="numbers"><h2 data-said="Measured: {", ".join(titles)}">Measures</h2>'
        f"<p>{len(flow.texts)} captions, {len(flow.videos)} clips. A smaller gap does not always mean better "
        f"retrieval. The small numbers are 95 % bootstrap intervals over clips.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Measures"><table class="gap"><thead><tr>'
        f'<th scope="col">measure</th><th scope="col">text t, ranked by {titles[0]}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(metrics + rows)}</tbody></table></div></section>"
    )


def trajectory_html(flows: Sequence[Flow], corpus: Corpus, media: Media = CORPUS_MEDIA) -> str:
    """Return the table of a trajectory's steps with the leading clips, and the ends of the other trajectories."""
    flow, others = flows[0], flows[1:]
    measured, ranks = path_measures(flow), ranks_by_step(flow, 0)
    rows = [
        _row(label, [f"{value:.{digits}f}" for value in measured[name][:, 0]])
        for name, (label, digits) in _ROWS.items()
    ]
    leaders = [np.argsort(row)[:_TOP] for row in ranks]
    for place in range(min(_TOP, len(corpus))):
        rows.append(_row(f"rank {place + 1}", [_clip(corpus.clips[row[place]], media) for row in leaders], "clip"))
    heads = "".join(f"<th scope='col'>{name}</th>" for name in step_names(len(flow.points)))
    target, verdict = escape(corpus.clips[flow.video_of[0]].title), _verdict(flow, ranks, measured)
    return (
        f'<section class="numbers"><h2 data-said="{verdict}">Step by step</h2>'
        f"<p>{verdict} The clip followed ranks first at the end: <q>{target}</q></p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Steps">'
        f'<table class="trajectory"><thead><tr><th scope="col">step</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{_ends(others, corpus, media)}</section>"
    )


def _ends(flows: Sequence[Flow], corpus: Corpus, media: Media) -> str:
    """The ends of the diffusion baseline's trajectories from Gaussian starts."""
    if not flows:
        return ""
    ends = torch.cat([F.normalize(flow.points[-1], dim=-1) for flow in flows])
    agreement = (ends @ ends.T)[tuple(torch.triu_indices(len(ends), len(ends), 1))]
    starts = torch.cat([F.cosine_similarity(flow.points[0], flow.points[-1], dim=-1) for flow in flows])
    clips = "".join(f"<li>{_clip(corpus.clips[flow.video_of[0]], media)}</li>" for flow in flows)
    return (
        f"<p>Diffusion from {len(flows)} Gaussian starts: the mean cosine between two ends is "
        f"{float(agreement.mean()):.3f}, between an end and its start {float(starts.mean()):.3f}. DITS starts at the "
        f"query and, without noise, has a single end. The clips that rank first at the ends of diffusion:</p>"
        f'<ul class="ends">{clips}</ul>'
    )


def chosen_html(drawn: DrawnFlow, corpus: Corpus, choice: Choice, media: Media = CORPUS_MEDIA) -> str:
    """Return the clips of the chosen points of a map, and the nearest neighbours of the first point in the full space.

    Raises:
        InputError: the map does not have such a point.
    """
    videos = dict.fromkeys(drawn.video_of(kind, index) for kind, index, _ in choice.points)
    cells = "".join(
        f"<li>{video_html(clip, media, 'tabindex=-1')}"
        f'<small class="unplayed">{UNPLAYED}</small><span>{escape(clip.title)}</span></li>'
        for clip in (corpus.clips[video] for video in videos if video >= 0)
    )
    listed = len(choice.points)
    part = f"{listed} of {choice.total} points"
    count = part if listed < choice.total else "1 point" if listed == 1 else f"{listed} points"
    near = _neighbours(drawn, corpus, choice.points[0])
    return (
        f'<section class="chosen"><h3 data-said="Chosen: {count}">Chosen: {count}</h3><ul>{cells}</ul>{near}</section>'
    )


def _neighbours(drawn: DrawnFlow, corpus: Corpus, point: tuple[str, int, int]) -> str:
    name, vector = drawn.point(*point)
    near = nearest(drawn.cloud, vector, _NEIGHBOURS)
    titles = [corpus.clips[video].title for video in near.videos]
    captions = [drawn.labels.texts[text] for text in near.texts]
    columns = "".join(
        f"<div><h4>Nearest {kind}</h4><ol>"
        + "".join(f"<li>{escape(text)} <b>{cosine:.3f}</b></li>" for text, cosine in zip(texts, cosines, strict=True))
        + "</ol></div>"
        for kind, texts, cosines in (("clips", titles, near.video_cosines), ("captions", captions, near.text_cosines))
    )
    return f'<p>In the full space, not on the map, nearest to {escape(name)}:</p><div class="columns">{columns}</div>'


def _verdict(flow: Flow, ranks: np.ndarray, measured: dict[str, np.ndarray]) -> str:
    """A summary of the trajectory."""
    steps = len(flow.points) - 1
    if not steps:
        return "This method does not move the query."
    angle = float(np.degrees(np.arccos(min(1.0, measured["cosine_to_start"][-1, 0]))))
    closed = float(measured["gap_closed"][-1, 0])
    approach = f"{abs(closed):.1%} {'nearer to' if closed > 0 else 'farther from'} the clip followed"
    changed = ranks[0] != ranks[-1]
    leading = int((changed & (ranks[0] <= _LEADING)).sum())
    return (
        f"After {steps} {'step' if steps == 1 else 'steps'}, the query has moved by {angle:.1f} degrees and is "
        f"{approach}. {int(changed.sum())} of {len(changed)} clips change rank, {leading} of them among the first "
        f"{_LEADING}."
    )


def _row(label: str, cells: Sequence[str], kind: str = "number") -> str:
    body = "".join(f'<td class="{kind}">{cell}</td>' for cell in cells)
    return f"<tr><th scope='row'>{label}</th>{body}</tr>"


def _clip(clip: Clip, media: Media) -> str:
    return picture_html(clip, media, clip.title) or f"<small>{escape(clip.title)}</small>"


def _gap_cell(analysis: Analysis, name: str, step: int) -> str:
    at = step % len(analysis.flow.points)
    value = f"{analysis.reports[0][at].gap[name]:.3f}"
    bounds = analysis.intervals.get(at, {}).get(name)
    spread = f"<small>{bounds[0]:.3f} to {bounds[1]:.3f}</small>" if bounds else ""
    return f'<td class="number">{value}{spread}</td>'


def _metric_cells(analysis: Analysis, name: str, step: int) -> str:
    return f'<td class="number">{analysis.reports[0][step].t2v.as_dict()[name]:.1f}</td>'

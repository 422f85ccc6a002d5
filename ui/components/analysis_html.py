"""The numbers of the analysis tabs, as HTML. Everything that a corpus or a visitor wrote is escaped."""

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
    "cosine_to_start": ("cosine to the sentence", 4),
    "cosine_to_target": ("cosine to the clip followed", 3),
    "cosine_to_distractor": ("cosine to the nearest other clip", 3),
    "gap_closed": ("share of the distance closed", 3),
    "step_length": ("length of the step", 3),
}


def gap_html(titled: Mapping[str, Analysis]) -> str:
    """The table of measures: at the text, and at v_0 under each method, by its title, with bootstrap intervals."""
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
        f'<section class="numbers">'
        f'<h2 data-said="Measured: {", ".join(titles)}">Measures</h2>'
        f"<p>{len(flow.texts)} sentences, {len(flow.videos)} clips. Retrieval "
        f"first: a smaller gap need not rank better. Under a number, its 95 % bootstrap interval over clips.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Measures"><table class="gap"><thead><tr>'
        f'<th scope="col">measure</th><th scope="col">text t, as {titles[0]} ranks it</th>{heads}</tr></thead>'
        f"<tbody>{''.join(metrics + rows)}</tbody></table></div></section>"
    )


def trajectory_html(flows: Sequence[Flow], corpus: Corpus, media: Media = CORPUS_MEDIA) -> str:
    """What each step of a sentence's way does, and the clips that lead at each; of other ways where they end."""
    flow, others = flows[0], flows[1:]
    measured, ranks = path_measures(flow), ranks_by_step(flow, 0)
    rows = [
        _row(label, [f"{value:.{digits}f}" for value in measured[name][:, 0]])
        for name, (label, digits) in _ROWS.items()
    ]
    leaders = [np.argsort(row)[:_TOP] for row in ranks]
    for place in range(min(_TOP, len(corpus))):
        rows.append(_row(f"place {place + 1}", [_clip(corpus.clips[row[place]], media) for row in leaders], "clip"))
    heads = "".join(f"<th scope='col'>{name}</th>" for name in step_names(len(flow.points)))
    target, verdict = escape(corpus.clips[flow.video_of[0]].title), _verdict(flow, ranks, measured)
    return (
        f'<section class="numbers">'
        f'<h2 data-said="{verdict}">Step by step</h2><p>{verdict} The clip followed is the one '
        f"that comes first at the end: <q>{target}</q></p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Steps">'
        f'<table class="way"><thead><tr><th scope="col">step</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{_ends(others, corpus, media)}</section>"
    )


def _ends(flows: Sequence[Flow], corpus: Corpus, media: Media) -> str:
    """Where the baseline's Gaussian starts end, beside each other."""
    if not flows:
        return ""
    ends = torch.cat([F.normalize(flow.points[-1], dim=-1) for flow in flows])
    agreement = (ends @ ends.T)[tuple(torch.triu_indices(len(ends), len(ends), 1))]
    starts = torch.cat([F.cosine_similarity(flow.points[0], flow.points[-1], dim=-1) for flow in flows])
    clips = "".join(f"<li>{_clip(corpus.clips[flow.video_of[0]], media)}</li>" for flow in flows)
    return (
        f"<p>Diffusion from {len(flows)} Gaussian starts: its ends have a cosine of {float(agreement.mean()):.3f} with "
        f"each other on average and of {float(starts.mean()):.3f} with their own starts. DITS starts at the sentence "
        f"and, without noise, ends at one place. The clips that come first at those ends:</p>"
        f'<ul class="ends">{clips}</ul>'
    )


def chosen_html(drawn: DrawnFlow, corpus: Corpus, choice: Choice, media: Media = CORPUS_MEDIA) -> str:
    """The clips of chosen points of a map, playing, and what lies nearest to the first of them in the full space.

    Raises:
        InputError: the map has no such point.
    """
    videos = dict.fromkeys(drawn.video_of(kind, index) for kind, index, _ in choice.points)
    cells = "".join(
        f"<li>{video_html(clip, media, 'tabindex=-1')}"
        f'<small class="unplayed">{UNPLAYED}</small><span>{escape(clip.title)}</span></li>'
        for clip in (corpus.clips[video] for video in videos if video >= 0)
    )
    listed = len(choice.points)
    count = (
        f"{listed} of {choice.of} points" if listed < choice.of else "1 point" if listed == 1 else f"{listed} points"
    )
    near = _neighbours(drawn, corpus, choice.points[0])
    return (
        f'<section class="chosen"><h3 data-said="Chosen: {count}">Chosen: {count}</h3><ul>{cells}</ul>{near}</section>'
    )


def _neighbours(drawn: DrawnFlow, corpus: Corpus, point: tuple[str, int, int]) -> str:
    name, vector = drawn.point(*point)
    found = nearest(drawn.cloud, vector, _NEIGHBOURS)
    texts = [(drawn.labels.texts[text], cosine) for text, cosine in zip(found.texts, found.text_cosines, strict=True)]
    videos = [
        (corpus.clips[video].title, cosine) for video, cosine in zip(found.videos, found.video_cosines, strict=True)
    ]
    return neighbours_html(name, videos, texts)


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
    steps = len(flow.points) - 1
    if not steps:
        return "This method leaves the sentence where it is."
    angle = float(np.degrees(np.arccos(min(1.0, measured["cosine_to_start"][-1, 0]))))
    closed = float(measured["gap_closed"][-1, 0])
    approach = f"{abs(closed):.1%} {'nearer to' if closed > 0 else 'farther from'} the clip followed"
    changed = ranks[0] != ranks[-1]
    leading = int((changed & (ranks[0] <= _LEADING)).sum())
    return (
        f"{steps} {'step turns' if steps == 1 else 'steps turn'} the sentence by {angle:.1f} degrees and end "
        f"{approach}. {int(changed.sum())} of {len(changed)} clips change places, {leading} of the first {_LEADING} "
        "among them."
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

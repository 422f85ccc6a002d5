"""Search results as HTML. Everything that comes from a user or a file is escaped."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from dits.corpus import Clip
from dits.results import Hit, SearchResult
from dits.search import SearchEngine
from ui.media import CORPUS_MEDIA, Media

__all__ = [
    "METHOD_NAMES",
    "comparison_html",
    "error_html",
    "method_choices",
    "missing_html",
    "notice_html",
    "picture_html",
    "prepare_label",
    "progress_html",
    "results_html",
    "status_html",
    "video_html",
]

UNPLAYED = "This browser does not play the file: here is a picture of it."

METHOD_NAMES = {"dits": "DITS", "xpool": "X-Pool", "mean": "Mean pooling"}


def results_html(result: SearchResult, media: Media = CORPUS_MEDIA) -> str:
    """A ranking as a grid of playing clips."""
    cards = "".join(_card(hit, result, media) for hit in result.hits)
    notice = notice_html(result.notice) if result.notice else ""
    title = f"Results for <q>{escape(_shortened(result.query))}</q>, ranked by {METHOD_NAMES[result.method]}"
    return (
        f'<section class="results" aria-label="Results"><div class="head"><h2 role="status">{title}</h2>'
        f'<button class="pause" aria-pressed="false">Pause clips</button></div>{notice}<ol class="grid">{cards}</ol>'
        '<dialog class="viewer" aria-label="The clip, larger"><form method="dialog">'
        '<button class="close" aria-label="Close">Close</button></form>'
        f'<video muted loop playsinline controls></video><p class="unplayed">{UNPLAYED}</p><p class="said"></p>'
        "</dialog></section>"
    )


def comparison_html(
    results: Mapping[str, SearchResult], chosen: str, shown: int = 5, media: Media = CORPUS_MEDIA
) -> str:
    """The methods' rankings side by side, each place with its change against the chosen method; of one, nothing."""
    if len(results) < 2:
        return ""
    columns = "".join(_column(results[name], chosen, shown, media) for name in METHOD_NAMES if name in results)
    return (
        f'<section class="comparison" aria-label="Comparison of methods"><h2>The same query, by each method</h2>'
        f'<div class="columns">{columns}</div>'
        f"<p class='legend'>Arrows: places gained or lost against {METHOD_NAMES[chosen]}.</p></section>"
    )


def status_html(engine: SearchEngine) -> str:
    """What the page runs on: encoder, weights, frames and steps."""
    parts = [f"{len(engine.corpus)} clips, {engine.embeddings.frames.shape[1]} frames each"]
    parts.append(f"encoder <code>{escape(engine.encoder.id)}</code> on {escape(str(engine.encoder.device))}")
    for name, method in engine.methods.items():
        if method.weights:
            steps = f", {method.model.config.sampler.steps} steps" if name == "dits" else ""
            parts.append(f"{METHOD_NAMES[name]} weights <code>{method.weights[:8]}</code>{steps}")
    notices = "".join(notice_html(notice) for notice in engine.notices)
    return f'<p class="status">{" · ".join(parts)}</p>{notices}'


def method_choices(engine: SearchEngine) -> dict[str, Any]:
    """The methods to choose from, as properties of a radio group; those without weights say so, and look so."""
    unready = " (no weights yet)"
    known = {*engine.methods, *engine.missing}  # a folder of weights may hold one method alone
    return {
        "choices": [
            (label + unready * (name in engine.missing), name) for name, label in METHOD_NAMES.items() if name in known
        ],
        "elem_classes": [f"without-{name}" for name in engine.missing],
    }


def missing_html(engine: SearchEngine) -> str:
    """Which methods have no weights, and why those that were found cannot be used."""
    verb = "has" if len(engine.missing) == 1 else "have"
    reasons = [reason for reason in engine.missing.values() if reason]
    sentence = f"{_joined(engine.missing)} {verb} no weights for this encoder yet; mean pooling needs none."
    return "".join(map(notice_html, (sentence, *reasons)))


def prepare_label(engine: SearchEngine, minutes: int) -> str:
    """What the button says that makes what is missing."""
    unit = "minute" if minutes == 1 else "minutes"
    return f"Prepare {_joined(engine.missing)} for this encoder (about {minutes} {unit})"


def progress_html(what: str, done: int, total: int) -> str:
    """A line and a bar: what is being prepared, and how far it is."""
    count = f": {done} of {total}" if total > 1 else ""
    value = f' value="{done}"' if total > 1 else ""
    bar = f'<progress aria-label="{escape(what)}" max="{max(total, 1)}"{value}></progress>'
    return f'<div class="progress"><p>{escape(what)}{count} …</p>{bar}</div>'


def error_html(sentence: str) -> str:
    """One sentence on what is wrong."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>'


def _joined(methods: Iterable[str]) -> str:
    return " and ".join(METHOD_NAMES[name] for name in methods)


def notice_html(sentence: str) -> str:
    """One sentence that is worth knowing."""
    return f'<p class="notice" role="status">{escape(sentence)}</p>'


def picture_html(clip: Clip, media: Media, alternative: str = "") -> str:
    """A small picture of a clip: out of the strip of its frames, or its own; nothing where it has neither."""
    strip, text = media.strip(clip), escape(alternative)
    address = strip or media.picture(clip)
    shape = "" if strip else ' class="whole"'
    return f'<img src="{escape(address)}" alt="{text}" title="{text}"{shape}>' if address else ""


def _card(hit: Hit, result: SearchResult, media: Media) -> str:
    playing = video_html(hit.clip, media, 'tabindex="-1"')
    url, caption = escape(media.video(hit.clip)), escape(hit.clip.title)
    places = " · ".join(
        f"{METHOD_NAMES[name]} {_place(rank, hit.rank)}" for name, rank in hit.ranks.items() if name != result.method
    )
    others = f"<p class='others'>{places}</p>" if places else ""
    return (
        f'<li class="card" data-id="{escape(hit.clip.id)}">'
        f'<button class="open" data-video="{url}" data-moment="{hit.best_moment:.3f}" data-caption="{caption}" '
        f'aria-label="Rank {hit.rank}: {caption}. Open larger at its best moment, {hit.best_moment:.1f} seconds">'
        f'{playing}<span class="rank">{hit.rank}</span>'
        f'<span class="unplayed">{UNPLAYED}</span></button>'
        f"{_strip(hit, media)}<p class='about'>{caption}</p>{_score(hit, result)}{others}</li>"
    )


def video_html(clip: Clip, media: Media, more: str = "") -> str:
    """A clip that plays without sound, over and over; `more` are further attributes."""
    picture, part = escape(media.picture(clip)), _part(clip)
    poster = f' poster="{picture}"' if picture else ""
    return (
        f'<video src="{escape(media.video(clip))}"{poster}{part or " loop"} muted playsinline preload="metadata" '
        f'aria-hidden="true" {more}></video>'
    )


def _part(clip: Clip) -> str:
    """The part of its file that a clip is, as attributes that results.js reads: it plays that part over and over, where
    `loop` would begin the file again.
    """
    return "" if clip.start is None or clip.end is None else f' data-start="{clip.start:.3f}" data-end="{clip.end:.3f}"'


def _strip(hit: Hit, media: Media) -> str:
    """The frames that the encoder saw; each bar is the weight of its frame, the three highest are marked."""
    top = max(frame.weight for frame in hit.frames)
    even = top - min(frame.weight for frame in hit.frames) < 1e-6
    marked = set() if even else {f.time for f in sorted(hit.frames, key=lambda frame: -frame.weight)[:3]}
    cells = "".join(
        f'<i class="{"marked" if frame.time in marked else ""}" style="--weight:{frame.weight / top:.3f}" '
        f'title="{frame.time:.1f} s, weight {frame.weight:.0%}"></i>'
        for frame in hit.frames
    )
    label = "All frames count the same" if even else f"The frame at {hit.best_moment:.1f} s counts most"
    address = media.strip(hit.clip)
    strip = f'<img src="{escape(address)}" alt="">' if address else ""
    return f'<div class="strip" role="img" aria-label="{label}">{strip}{cells}</div>'


def _score(hit: Hit, result: SearchResult) -> str:
    low, mean, high = result.spread
    width = max(high - low, 1e-9)
    direction = "above" if hit.deviations >= 0 else "below"
    meaning = f"{abs(hit.deviations):.1f} sd {direction} the corpus"
    return (
        f'<p class="score"><span>cosine <b>{hit.score:.3f}</b></span>'
        f'<span class="track" style="--mean:{(mean - low) / width:.3f};--at:{(hit.score - low) / width:.3f}" '
        f'title="Lowest {low:.3f}, mean {mean:.3f}, highest {high:.3f} over all clips"></span>'
        f"<span>{meaning}</span></p>"
    )


def _column(result: SearchResult, chosen: str, shown: int, media: Media) -> str:
    rows = "".join(
        f"<li>{picture_html(hit.clip, media)}<span>{escape(hit.clip.title)}</span>"
        f"{_change(hit, chosen) if result.method != chosen else ''}</li>"
        for hit in result.hits[:shown]
    )
    return f"<div><h3>{METHOD_NAMES[result.method]}</h3><ol>{rows}</ol></div>"


def _change(hit: Hit, chosen: str) -> str:
    """How far a place lies above or below the same clip's place under the chosen method."""
    return f'<span class="change">{_place(hit.ranks[chosen], hit.rank, invert=True)}</span>'


def _place(rank: int, reference: int, invert: bool = False) -> str:
    """A place with an arrow for its distance from another one."""
    difference = (rank - reference) if invert else (reference - rank)
    if difference == 0:
        return '<b class="same">=</b>' if invert else f"{rank} <b class='same'>=</b>"
    arrow, kind, said = ("▲", "up", "places higher") if difference > 0 else ("▼", "down", "places lower")
    shown = f'<b class="{kind}" title="{abs(difference)} {said}">{arrow}{abs(difference)}</b>'
    return shown if invert else f"{rank} {shown}"


def _shortened(text: str, limit: int = 90) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"

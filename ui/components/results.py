"""Search results as HTML. Everything that comes from a user or a file is escaped."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from dits.corpora.corpus import Clip
from dits.search.engine import SearchEngine
from dits.search.results import Hit, SearchResult
from ui.services.media import CORPUS_MEDIA, Media

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
    "verdict",
    "video_html",
    "waiting_html",
]

UNPLAYED = "This browser does not play the file: here is a picture of it."

METHOD_NAMES = {"dits": "DITS", "xpool": "X-Pool", "mean": "Mean pooling"}


def results_html(result: SearchResult, media: Media = CORPUS_MEDIA, link: str = "", compared: str = "") -> str:
    """A ranking as a grid of playing clips.

    Args:
        link: the parameters of the address that shows it again.
        compared: what `verdict` says of the methods.
    """
    cards = "".join(_card(hit, result, media) for hit in result.hits)
    notice = notice_html(result.notice) if result.notice else ""
    query, count = escape(_shortened(result.query)), f"{len(result.hits)} result{'s' * (len(result.hits) != 1)}"
    ranked = f"ranked by {METHOD_NAMES[result.method]}"
    return (
        f'<section class="results" aria-label="Results" data-link-of="search" data-link="{escape(link)}">'
        f'<div class="head"><h2 data-said="{count} for {query}, {ranked}">{count} for <q>{query}</q>, {ranked}</h2>'
        '<div class="tools"><button class="copy">Copy link</button>'
        f'<button class="pause">Pause clips</button></div>{compared}</div>{notice}'
        f'<ol class="grid" role="list">{cards}</ol>'
        '<p class="hint">Pick a clip to see it larger at its best moment. Bars: how much each frame counts.</p>'
        '<dialog class="viewer" aria-label="The clip, larger"><form method="dialog">'
        '<button class="close">Close</button></form>'
        f'<video muted loop playsinline controls></video><p class="unplayed">{UNPLAYED}</p><p class="said"></p>'
        "</dialog></section>"
    )


def waiting_html(cards: int, columns: int = 3, shown: int = 5) -> tuple[str, str]:
    """What stands where `results_html` and `comparison_html` will, of the same shape, so that nothing jumps."""
    card = '<li class="blank"><span class="picture"></span><span class="strip"></span><span class="words"></span></li>'
    row = f"<div><h3>&nbsp;</h3><ol>{'<li><span></span></li>' * shown}</ol></div>"
    return (
        '<div class="results waiting" aria-hidden="true"><div class="head"></div>'
        f'<ol class="grid">{card * cards}</ol></div>',
        f'<div class="comparison waiting" aria-hidden="true"><h2>&nbsp;</h2>'
        f'<div class="columns">{row * columns}</div><p class="legend">&nbsp;</p></div>',
    )


def comparison_html(
    results: Mapping[str, SearchResult],
    chosen: str,
    shown: int = 5,
    media: Media = CORPUS_MEDIA,
    asked: str | None = None,
) -> str:
    """The methods' first places side by side, each with its change against the chosen method; of one method, nothing.

    Args:
        asked: the id of the clip that the query is known to ask for: it is marked.
    """
    if len(results) < 2:
        return ""
    columns = "".join(_column(result, chosen, shown, media, asked) for result in _in_order(results).values())
    return (
        f'<section class="comparison" aria-label="Comparison of methods"><h2>By each method</h2>'
        f'<div class="columns">{columns}</div>'
        f"<details class='legend'><summary>Captions</summary>▲ and ▼: places gained or lost against "
        f"{METHOD_NAMES[chosen]}; = the same place.</details></section>"
    )


def verdict(results: Mapping[str, SearchResult], chosen: str, asked: str | None = None, shown: int = 5) -> str:
    """How methods differ, in a sentence: on the clip `asked` for, or else in their first places; of one, nothing."""
    if len(results) < 2:
        return ""
    known = _in_order(results)
    return f'<p class="verdict">{_places_of(asked, known) if asked else _agreement(known, chosen, shown)}</p>'


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
    return f'<div class="progress"><p data-said="{escape(what)}">{escape(what)}{count} …</p>{bar}</div>'


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
    still = _still(hit, media)
    url, caption = escape(media.video(hit.clip)), escape(hit.clip.title)
    places = " · ".join(
        f"{METHOD_NAMES[name]} {_place(rank, hit.rank)}" for name, rank in hit.ranks.items() if name != result.method
    )
    others = f"<p class='others'>{places}</p>" if places else ""
    return (
        f'<li class="card" data-id="{escape(hit.clip.id)}">'
        f'<button class="open"{still} data-video="{url}" data-moment="{hit.best_moment:.3f}" data-caption="{caption}" '
        f'aria-label="Rank {hit.rank}: {caption}. Open larger at its best moment, {hit.best_moment:.1f} seconds">'
        f'{playing}<span class="rank">{hit.rank}</span>'
        f'<span class="unplayed">{UNPLAYED}</span></button>'
        f"{_strip(hit, media)}<p class='about'>{caption}</p>{_score(hit, result)}{others}</li>"
    )


def _still(hit: Hit, media: Media) -> str:
    """The frame that counts most, out of the strip, which lies behind the clip until that can be shown."""
    address = media.strip(hit.clip)
    if not address:
        return ""
    frame = min(range(len(hit.frames)), key=lambda k: abs(hit.frames[k].time - hit.best_moment))
    part = frame / max(len(hit.frames) - 1, 1)
    return f""" style="--still:url('{escape(address)}');--frame:{part:.4f}\""""


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


def _column(result: SearchResult, chosen: str, shown: int, media: Media, asked: str | None) -> str:
    rows = "".join(_row(hit, result, chosen, media, asked) for hit in result.hits[:shown])
    here = " <small>(chosen)</small>" if result.method == chosen else ""
    return f'<div><h3>{METHOD_NAMES[result.method]}{here}</h3><ol role="list">{rows}</ol></div>'


def _row(hit: Hit, result: SearchResult, chosen: str, media: Media, asked: str | None) -> str:
    title = escape(hit.clip.title)
    mark = "<span class='mark'>asked for</span>" if hit.clip.id == asked else ""
    change = _change(hit, chosen) if result.method != chosen else ""
    return (
        f'<li title="{title}"{" class=asked" if mark else ""}><span class="picture">{picture_html(hit.clip, media)}'
        f'<b class="rank">{hit.rank}</b>{change}{mark}</span><span class="caption">{title}</span></li>'
    )


def _in_order(results: Mapping[str, SearchResult]) -> dict[str, SearchResult]:
    return {name: results[name] for name in METHOD_NAMES if name in results}


def _places_of(asked: str, results: Mapping[str, SearchResult]) -> str:
    """Where every method places the clip that the query asks for."""
    places = {
        name: next((hit.rank for hit in result.hits if hit.clip.id == asked), 0) for name, result in results.items()
    }
    beyond = max(len(result.hits) for result in results.values())
    said = [
        f"<b>{_ordinal(place) if place else f'not among {beyond}'}</b> by {METHOD_NAMES[name]}"
        for name, place in places.items()
    ]
    return f"The clip this example asks for comes {', '.join(said)}."


def _agreement(results: Mapping[str, SearchResult], chosen: str, shown: int) -> str:
    """In how many of the first places the others differ from the chosen method."""
    first = {name: [hit.clip.id for hit in result.hits[:shown]] for name, result in results.items()}
    differ = {
        name: sum(one != other for one, other in zip(ids, first[chosen], strict=False))
        for name, ids in first.items()
        if name != chosen
    }
    count = len(first[chosen])
    said = [
        f"{METHOD_NAMES[name]} has "
        + (f"another clip at <b>{n} of {count}</b> places" if n else f"<b>the same {count}</b>")
        for name, n in differ.items()
    ]
    return f"Against {METHOD_NAMES[chosen]}: {', '.join(said)}."


def _ordinal(number: int) -> str:
    last = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


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

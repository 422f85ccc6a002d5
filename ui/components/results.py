"""Search results as HTML. All text from users and files is escaped."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from dits.corpora.corpus import Clip
from dits.search.engine import SearchEngine
from dits.search.results import Hit, SearchResult
from ui.services.media import CORPUS_MEDIA, Media

UNPLAYED = "Your browser cannot play this file. Here is a picture."

METHOD_NAMES = {"dits": "DITS", "xpool": "X-Pool", "mean": "Mean pooling"}


def results_html(result: SearchResult, media: Media = CORPUS_MEDIA, link: str = "", comparison: str = "") -> str:
    """Return a ranking as a grid of playing clips.

    Args:
        link: the URL parameters that reproduce the ranking.
        comparison: the result of `verdict`.
    """
    cards = "".join(_card(hit, result, media) for hit in result.hits)
    notice = notice_html(result.notice) if result.notice else ""
    query, count = escape(_shortened(result.query)), f"{len(result.hits)} result{'s' * (len(result.hits) != 1)}"
    ranked = f"ranked by {METHOD_NAMES[result.method]}"
    return (
        f'<section class="results" aria-label="Results" data-link-of="search" data-link="{escape(link)}">'
        f'<div class="head"><h2 data-said="{count} for {query}, {ranked}">{count} for <q>{query}</q>, {ranked}</h2>'
        '<div class="tools"><button class="copy">Copy link</button>'
        f'<button class="pause">Pause clips</button></div>{comparison}</div>{notice}'
        f'<ol class="grid" role="list">{cards}</ol>'
        '<p class="hint">Click a clip to see it larger at its best moment. The bars are the weights of the frames.</p>'
        '<dialog class="viewer" aria-label="Larger view of the clip"><form method="dialog">'
        '<button class="close">Close</button></form>'
        f'<video muted loop playsinline controls></video><p class="unplayed">{UNPLAYED}</p><p class="said"></p>'
        "</dialog></section>"
    )


def waiting_html(cards: int, columns: int = 3, shown: int = 5) -> tuple[str, str]:
    """Return placeholders for `results_html` and `comparison_html` of the same size, so that nothing shifts."""
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
    target: str | None = None,
) -> str:
    """Return the first results of all methods with their changes against the chosen method; "" for a single method.

    Args:
        target: the id of the target clip, if known; it is marked.
    """
    if len(results) < 2:
        return ""
    columns = "".join(_column(result, chosen, shown, media, target) for result in _in_order(results).values())
    return (
        f'<section class="comparison" aria-label="Comparison of methods"><h2>Comparison of methods</h2>'
        f'<div class="columns">{columns}</div>'
        "<div class='legend'><details><summary>Captions</summary></details>▲ and ▼: ranks gained or lost compared "
        f"with {METHOD_NAMES[chosen]}; =: the same rank.</div></section>"
    )


def verdict(results: Mapping[str, SearchResult], chosen: str, target: str | None = None, shown: int = 5) -> str:
    """Say in one sentence how methods rank the target clip or, without one, how their first results differ.

    Returns "" for a single method.
    """
    if len(results) < 2:
        return ""
    known = _in_order(results)
    return f'<p class="verdict">{_target_ranks(target, known) if target else _agreement(known, chosen, shown)}</p>'


def status_html(engine: SearchEngine) -> str:
    """Return the status line: clips, frames, encoder, weights and steps."""
    parts = [f"{len(engine.corpus)} clips, {engine.embeddings.frames.shape[1]} frames each"]
    parts.append(f"encoder <code>{escape(engine.encoder.id)}</code> on {escape(str(engine.encoder.device))}")
    for name, method in engine.methods.items():
        if method.weights_sha256:
            steps = f", {method.model.config.sampler.steps} steps" if name == "dits" else ""
            parts.append(f"{METHOD_NAMES[name]} weights <code>{method.weights_sha256[:8]}</code>{steps}")
    notices = "".join(notice_html(notice) for notice in engine.notices)
    return f'<p class="status">{" · ".join(parts)}</p>{notices}'


def method_choices(engine: SearchEngine) -> dict[str, Any]:
    """Return the methods as properties of a radio group; methods without weights are marked."""
    unready = " (no weights yet)"
    known = {*engine.methods, *engine.missing}  # a folder of weights may hold one method alone
    return {
        "choices": [
            (label + unready * (name in engine.missing), name) for name, label in METHOD_NAMES.items() if name in known
        ],
        "elem_classes": [f"without-{name}" for name in engine.missing],
    }


def missing_html(engine: SearchEngine) -> str:
    """Say which methods have no weights, and why existing weights cannot be used."""
    verb = "has" if len(engine.missing) == 1 else "have"
    reasons = [reason for reason in engine.missing.values() if reason]
    sentence = f"{_joined(engine.missing)} {verb} no weights for this encoder yet; mean pooling needs none."
    return "".join(map(notice_html, (sentence, *reasons)))


def prepare_label(engine: SearchEngine, minutes: int) -> str:
    """Return the label of the button that prepares the missing weights."""
    unit = "minute" if minutes == 1 else "minutes"
    return f"Prepare {_joined(engine.missing)} for this encoder (about {minutes} {unit})"


def progress_html(task: str, done: int, total: int) -> str:
    """Return a line and a progress bar for a task."""
    count = f": {done} of {total}" if total > 1 else ""
    value = f' value="{done}"' if total > 1 else ""
    bar = f'<progress aria-label="{escape(task)}" max="{max(total, 1)}"{value}></progress>'
    return f'<div class="progress"><p data-said="{escape(task)}">{escape(task)}{count} …</p>{bar}</div>'


def error_html(sentence: str) -> str:
    """Return an error message."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>'


def notice_html(sentence: str) -> str:
    """Return a notice."""
    return f'<p class="notice" role="status">{escape(sentence)}</p>'


def picture_html(clip: Clip, media: Media, alternative: str = "") -> str:
    """Return a thumbnail: from the strip of frames or the picture of the clip; "" if the clip has neither."""
    strip, text = media.strip(clip), escape(alternative)
    address = strip or media.picture(clip)
    shape = "" if strip else ' class="whole"'
    return f'<img src="{escape(address)}" alt="{text}" title="{text}"{shape}>' if address else ""


def _joined(methods: Iterable[str]) -> str:
    return " and ".join(METHOD_NAMES[name] for name in methods)


def _card(hit: Hit, result: SearchResult, media: Media) -> str:
    playing = video_html(hit.clip, media, 'tabindex="-1"')
    still = _still(hit, media)
    url, caption = escape(media.video(hit.clip)), escape(hit.clip.title)
    ranks = " · ".join(
        f"{METHOD_NAMES[name]} {_change(rank, hit.rank)}" for name, rank in hit.ranks.items() if name != result.method
    )
    others = f"<p class='others'>{ranks}</p>" if ranks else ""
    return (
        f'<li class="card" data-id="{escape(hit.clip.id)}">'
        f'<button class="open"{still} data-video="{url}" data-moment="{hit.best_moment:.3f}" data-caption="{caption}" '
        f'aria-label="Rank {hit.rank}: {caption}. Open larger at its best moment, {hit.best_moment:.1f} seconds">'
        f'{playing}<span class="rank">{hit.rank}</span>'
        f'<span class="unplayed">{UNPLAYED}</span></button>'
        f"{_strip(hit, media)}<p class='about'>{caption}</p>{_score(hit, result)}{others}</li>"
    )


def _still(hit: Hit, media: Media) -> str:
    """The frame at the best moment, from the strip; the browser shows it until the video is loaded."""
    address = media.strip(hit.clip)
    if not address:
        return ""
    frame = min(range(len(hit.frames)), key=lambda k: abs(hit.frames[k].time - hit.best_moment))
    part = frame / max(len(hit.frames) - 1, 1)
    return f""" style="--still:url('{escape(address)}');--frame:{part:.4f}\""""


def video_html(clip: Clip, media: Media, more: str = "") -> str:
    """Return a video that plays muted in a loop; `more` are further attributes."""
    picture = escape(media.picture(clip))
    poster = f' poster="{picture}"' if picture else ""
    segment = ""  # results.js repeats the segment; `loop` would repeat the whole file
    if clip.start is not None and clip.end is not None:
        segment = f' data-start="{clip.start:.3f}" data-end="{clip.end:.3f}"'
    return (
        f'<video src="{escape(media.video(clip))}"{poster}{segment or " loop"} muted playsinline preload="metadata" '
        f'aria-hidden="true" {more}></video>'
    )


def _strip(hit: Hit, media: Media) -> str:
    """The sampled frames with their weights as bars; the three highest weights are marked."""
    top = max(frame.weight for frame in hit.frames)
    uniform = top - min(frame.weight for frame in hit.frames) < 1e-6
    marked = set() if uniform else {f.time for f in sorted(hit.frames, key=lambda frame: -frame.weight)[:3]}
    cells = "".join(
        f'<i class="{"marked" if frame.time in marked else ""}" style="--weight:{frame.weight / top:.3f}" '
        f'title="{frame.time:.1f} s, weight {frame.weight:.0%}"></i>'
        for frame in hit.frames
    )
    highest = f"The frame at {hit.best_moment:.1f} s has the highest weight"
    label = "All frames have the same weight" if uniform else highest
    address = media.strip(hit.clip)
    strip = f'<img src="{escape(address)}" alt="">' if address else ""
    return f'<div class="strip" role="img" aria-label="{label}">{strip}{cells}</div>'


def _score(hit: Hit, result: SearchResult) -> str:
    low, mean, high = result.spread
    width = max(high - low, 1e-9)
    direction = "above" if hit.deviations >= 0 else "below"
    deviations = f"{abs(hit.deviations):.1f} sd {direction} the mean"
    return (
        f'<p class="score"><span>cosine <b>{hit.score:.3f}</b></span>'
        f'<span class="track" style="--mean:{(mean - low) / width:.3f};--at:{(hit.score - low) / width:.3f}" '
        f'title="Lowest {low:.3f}, mean {mean:.3f}, highest {high:.3f} over all clips"></span>'
        f"<span>{deviations}</span></p>"
    )


def _column(result: SearchResult, chosen: str, shown: int, media: Media, target: str | None) -> str:
    rows = "".join(_row(hit, result, chosen, media, target) for hit in result.hits[:shown])
    mark = " <small>(chosen)</small>" if result.method == chosen else ""
    return f'<div><h3>{METHOD_NAMES[result.method]}{mark}</h3><ol role="list">{rows}</ol></div>'


def _row(hit: Hit, result: SearchResult, chosen: str, media: Media, target: str | None) -> str:
    title = escape(hit.clip.title)
    mark = "<span class='mark'>target</span>" if hit.clip.id == target else ""
    change = ""
    if result.method != chosen:
        change = f'<span class="change">{_change(hit.ranks[chosen], hit.rank, invert=True)}</span>'
    return (
        f'<li title="{title}"{" class=asked" if mark else ""}><span class="picture">{picture_html(hit.clip, media)}'
        f'<b class="rank">{hit.rank}</b>{change}{mark}</span><span class="caption">{title}</span></li>'
    )


def _in_order(results: Mapping[str, SearchResult]) -> dict[str, SearchResult]:
    return {name: results[name] for name in METHOD_NAMES if name in results}


def _target_ranks(target: str, results: Mapping[str, SearchResult]) -> str:
    """The ranks of the target clip under all methods."""
    ranks = {
        name: next((hit.rank for hit in result.hits if hit.clip.id == target), 0) for name, result in results.items()
    }
    last = max(len(result.hits) for result in results.values())
    parts = [
        f"<b>{_ordinal(rank) if rank else f'below {last}'}</b> with {METHOD_NAMES[name]}"
        for name, rank in ranks.items()
    ]
    return f"The target clip of this example ranks {', '.join(parts)}."


def _agreement(results: Mapping[str, SearchResult], chosen: str, shown: int) -> str:
    """At how many of the first ranks the other methods differ from the chosen method."""
    first = {name: [hit.clip.id for hit in result.hits[:shown]] for name, result in results.items()}
    differ = {
        name: sum(one != other for one, other in zip(ids, first[chosen], strict=False))
        for name, ids in first.items()
        if name != chosen
    }
    count = len(first[chosen])
    parts = [
        f"{METHOD_NAMES[name]} has "
        + (f"a different clip at <b>{n} of {count}</b> ranks" if n else f"<b>the same {count}</b> clips")
        for name, n in differ.items()
    ]
    return f"Compared with {METHOD_NAMES[chosen]}: {', '.join(parts)}."


def _ordinal(number: int) -> str:
    last = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


def _change(rank: int, reference: int, invert: bool = False) -> str:
    """A rank with an arrow for its difference from another rank; `invert`: the arrow alone, for the opposite change."""
    difference = (rank - reference) if invert else (reference - rank)
    if difference == 0:
        return '<b class="same">=</b>' if invert else f"{rank} <b class='same'>=</b>"
    arrow, kind, label = ("▲", "up", "ranks higher") if difference > 0 else ("▼", "down", "ranks lower")
    shown = f'<b class="{kind}" title="{abs(difference)} {label}">{arrow}{abs(difference)}</b>'
    return shown if invert else f"{rank} {shown}"


def _shortened(text: str, limit: int = 90) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"

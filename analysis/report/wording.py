"""What the numbers of an analysis say, in sentences: made from the numbers alone, so that text and figures agree."""

from typing import Any

from dits.models.retrieval import METHODS


def title_of(report: dict[str, Any]) -> str:
    """The report's title."""
    split = f", {report['split']} split" if report["split"] != "all" else ""
    return f"The modality gap of {report['corpus']}{split}{_under(report)}"


def findings(report: dict[str, Any]) -> list[str]:
    """What the report found, most important first."""
    steps, shifts = report["steps"], report["mean_shift"]
    sentences = [_what(report), *_seeds(report)]
    if len(steps) > 1:
        sentences += [_gap(steps), _retrieval(steps), _paths(report)]
    best = max(shifts, key=lambda shift: shift["t2v"]["R@1"])
    sentences.append(
        "When the mean gap is closed by arithmetic, the distance of the centroids "
        f"{_change(shifts[0]['centroid_distance'], shifts[-1]['centroid_distance'], 3)} and R@1 by the plain cosine "
        f"{_change(shifts[0]['t2v']['R@1'], shifts[-1]['t2v']['R@1'], 1)}; it is highest, {best['t2v']['R@1']:.1f}, "
        f"with {best['share']:.0%} of the gap closed. A smaller gap need not rank better."
    )
    sentences += [f"Measured on a random sample of {size}: {what}." for what, size in report["sampled"].items()]
    return sentences


def _under(report: dict[str, Any]) -> str:
    """The method, or whose weights; nothing where a file holds no steps."""
    name = report["method"]
    if name == "given":
        return ", under the steps given" if len(report["steps"]) > 1 else ""
    return f", under {METHODS[name].title if name in METHODS else name}"


def _what(report: dict[str, Any]) -> str:
    side = {
        "mean": "the mean of its frames, which no text has touched, stands for a video",
        "pooled": "its frames as its own text pools them stand for a video, closer to that text by construction",
        "given": "a video is the vector that the file gives",
    }[report["video_side"]]
    return f"{report['pairs']} texts and {report['videos']} videos; {side}."


def _seeds(report: dict[str, Any]) -> list[str]:
    if report["noise_seeds"] == 1:
        return []
    return [
        f"Measures and retrieval are means over {report['noise_seeds']} seeds of the noise, ± their standard "
        "deviation; intervals, ways, figures and maps are those of the first seed."
    ]


def _gap(steps: list[dict[str, Any]]) -> str:
    names = {
        "centroid_distance": "the distance of the centroids",
        "cosine": "the mean cosine of pairs",
        "rmg": "the relative modality gap",
    }
    changes = [f"{words} {_change(steps[0][name], steps[-1][name], 3)}" for name, words in names.items()]
    return f"From the text to v₀ {', '.join(changes[:-1])}, and {changes[-1]}."


def _retrieval(steps: list[dict[str, Any]]) -> str:
    first, last = steps[0]["t2v"], steps[-1]["t2v"]
    changes = [f"{name} {_change(first[name], last[name], 1)}" for name in ("R@1", "R@5", "R@10")]
    return f"Text to video, {', '.join(changes[:-1])} and {changes[-1]}."


def _paths(report: dict[str, Any]) -> str:
    closed = report["steps"][-1]["path"]["gap_closed"]
    low, high = closed["quantiles"][0], closed["quantiles"][-1]
    share = report["largest_step_share"]
    return (
        f"On its way a text closes {closed['mean']:.1%} of the distance to its own video on average (5th to 95th "
        f"percentile {low:.1%} to {high:.1%}); {share:.0%} of a path's length lies in its longest step."
    )


def _change(first: float, last: float, digits: int) -> str:
    """How a value changed, as far as it shows at so many digits."""
    before, after = f"{first:.{digits}f}", f"{last:.{digits}f}"
    if before == after:
        return f"stays at {after}"
    return f"{'rises' if last > first else 'falls'} from {before} to {after}"

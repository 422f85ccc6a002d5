"""The findings of an analysis as sentences, generated from its numbers so that text and figures agree."""

from typing import Any

from dits.models.retrieval import METHODS


def title_of(report: dict[str, Any]) -> str:
    """The report's title."""
    split = f", {report['split']} split" if report["split"] != "all" else ""
    return f"The modality gap of {report['corpus']}{split}{_under(report)}"


def findings(report: dict[str, Any]) -> list[str]:
    """The findings of the report, most important first."""
    steps, shifts = report["steps"], report["mean_shift"]
    sentences = [_data(report), *_seeds(report)]
    if len(steps) > 1:
        sentences += [_gap(steps), _retrieval(steps), _paths(report)]
    best = max(shifts, key=lambda shift: shift["t2v"]["R@1"])
    sentences.append(
        "When the mean gap is closed by arithmetic, the distance of the centroids "
        f"{_change(shifts[0]['centroid_distance'], shifts[-1]['centroid_distance'], 3)} and R@1 by the plain cosine "
        f"{_change(shifts[0]['t2v']['R@1'], shifts[-1]['t2v']['R@1'], 1)}; it is highest, {best['t2v']['R@1']:.1f}, "
        f"with {best['share']:.0%} of the gap closed. A smaller gap does not always mean better retrieval."
    )
    sentences += [f"Measured on a random sample of {size}: {results}." for results, size in report["sampled"].items()]
    return sentences


def _under(report: dict[str, Any]) -> str:
    """The method or the name of its weights; empty for a file without steps."""
    name = report["method"]
    if name == "given":
        return ", under the steps given" if len(report["steps"]) > 1 else ""
    return f", under {METHODS[name].title if name in METHODS else name}"


def _data(report: dict[str, Any]) -> str:
    side = {
        "mean": "each video is the mean of its frames, independent of the texts",
        "pooled": "each video is its frames pooled by its own text, closer to that text by construction",
        "given": "each video is the vector in the file",
    }[report["video_side"]]
    return f"{report['pairs']} texts and {report['videos']} videos; {side}."


def _seeds(report: dict[str, Any]) -> list[str]:
    if report["noise_seeds"] == 1:
        return []
    return [
        f"Measures and retrieval are means over {report['noise_seeds']} seeds of the noise, ± their standard "
        "deviation; intervals, trajectories, figures and maps are those of the first seed."
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
        f"A trajectory closes {closed['mean']:.1%} of the distance from the text to its own video on average (5th to "
        f"95th percentile {low:.1%} to {high:.1%}); its longest step has {share:.0%} of its length."
    )


def _change(first: float, last: float, digits: int) -> str:
    """The change of a value, rounded to this number of digits."""
    before, after = f"{first:.{digits}f}", f"{last:.{digits}f}"
    if before == after:
        return f"stays at {after}"
    return f"{'rises' if last > first else 'falls'} from {before} to {after}"

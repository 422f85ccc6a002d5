"""The output of `evaluate`: a report as markdown tables and sentences."""

from typing import Any

from dits.evaluation.metrics import METRIC_NAMES

_DIGITS = {"R@1": 1, "MRR": 3, "MnR": 2}  # after the decimal point of a difference


def table(report: dict[str, Any], intervals: bool) -> str:
    """The whole report as text; bootstrap intervals are optional, because they triple the width of a row."""
    parts = [_head(report), _results(report, intervals)]
    if "comparison" in report:
        parts.append(_comparison(report["comparison"], report["bootstrap"]))
    if "leak" in report:
        parts.append(_leak(report["leak"]))
    return "\n\n".join(parts)


def _head(report: dict[str, Any]) -> str:
    lines = [
        f"{report['corpus']}, split {report['split']}, encoder {report['encoder']}: {report['videos']} videos, "
        f"{report['queries']} queries, {report['skipped']} skipped"
    ]
    repeated, post = report["repeated_captions"], report["post"]
    if repeated["repeated"]:
        lines.append(_repeated(repeated, list(report["methods"])))
    if post:
        lines.append(f"Post-processed, {post['name']} at {post['temperature']:g}: {post['note']}.")
    return "\n".join(lines)


def _repeated(repeated: dict[str, Any], methods: list[str]) -> str:
    """The number of repeated captions, and the maximum R@1 of methods that rank identical texts alike."""
    count = f"{repeated['repeated']} of the {repeated['queries']} queries repeat another's caption"
    binding = repeated["binding"]
    if not binding:
        return f"{count}; with noise drawn for every query ({', '.join(methods)}) identical texts can rank differently."
    where = "" if binding == methods else f" under {', '.join(binding)}"
    return (
        f"{count}, and identical texts rank alike{where}: R@1 is at most {repeated['t2v_ceiling']:.1f} (t2v; "
        f"{repeated['t2v_tied']:.1f} if their videos tie) and {repeated['v2t_ceiling']:.1f} (v2t)."
    )


def _results(report: dict[str, Any], intervals: bool) -> str:
    lines = _header("method", "direction", *METRIC_NAMES, text=2)
    for method, directions in report["methods"].items():
        for direction, metrics in directions.items():
            spread = report.get("spread", {}).get(method, {}).get(direction, {})
            ends = report.get("intervals", {}).get(method, {}).get(direction, {}) if intervals else {}
            cells = [f"{value:.1f}" + _spread(spread.get(k)) + _interval(ends.get(k)) for k, value in metrics.items()]
            lines.append(_row(method, direction, *cells))
    if "runs" in report:
        lines.append(f"\nMean and standard deviation over {report['runs']} sets of weights.")
    if intervals:
        lines.append(f"\nIn brackets: {_bootstrap(report['bootstrap'])}, with gallery and weights fixed.")
    return "\n".join(lines)


def _comparison(comparison: dict[str, Any], bootstrap: dict[str, Any]) -> str:
    first, second = comparison["methods"]
    lines = _header(f"{first} minus {second}", "direction", "difference", "interval", "p", text=2)
    notes = []
    for direction in ("t2v", "v2t"):
        test = comparison[direction]
        for name, difference in test["differences"].items():
            value, low, high = (f"{difference[key]:+.{_DIGITS[name]}f}" for key in ("value", "low", "high"))
            lines.append(_row(name, direction, value, f"[{low}, {high}]", f"{difference['p']:.3f}"))
        notes.append(
            f"First place, {direction}: {test['only_first']} of {test['queries']} queries only by {first}, "
            f"{test['only_second']} only by {second}; exact McNemar test p = {test['mcnemar_p']:.3f}"
            + (", which treats captions of one video as independent." if test["drawn"] < test["queries"] else ".")
        )
    paired = f"Paired test on the same queries, {_bootstrap(bootstrap)}:\n"
    return "\n".join([paired, *lines, "", *notes])


def _leak(leak: dict[str, Any]) -> str:
    lines = [
        f"LEAKY ON PURPOSE, not a valid result: every video is pooled by its own caption, not by the query. On the "
        f"first caption of each of {leak['queries']} videos; {leak['left_out']} further captions are left out.",
        "",
        *_header("method", "direction", "evaluation", *METRIC_NAMES, text=3),
    ]
    for method, results in leak["methods"].items():
        for direction in results["proper"]:
            for kind, form in (("proper", ".1f"), ("leaky", ".1f"), ("inflation", "+.1f")):
                cells = [format(value, form) for value in results[kind][direction].values()]
                lines.append(_row(method, direction, kind, *cells))
    return "\n".join(lines)


def _bootstrap(config: dict[str, Any]) -> str:
    units = "videos, each with all its captions" if config["draw"] == "videos" else "queries"
    return f"{config['confidence']:g} % bootstrap intervals over {config['resamples']:,} resamples of the {units}"


def _header(*names: str, text: int) -> list[str]:
    """The two header lines of a markdown table; columns after the first `text` ones are numbers."""
    return [_row(*names), "|" + "---|" * text + "---:|" * (len(names) - text)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.1f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"

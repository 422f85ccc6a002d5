"""What `evaluate` prints: the report as markdown tables and sentences."""

from typing import Any

from dits.evaluation.metrics import METRIC_NAMES

_DIGITS = {"R@1": 1, "MRR": 3, "MnR": 2}  # that a difference is printed with


def table(report: dict[str, Any], intervals: bool) -> str:
    """The whole report as text, with the bootstrap intervals where asked for: they triple a row's width."""
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
    """How many queries repeat a caption, and the ceiling that this puts on the methods under which they rank alike."""
    count = f"{repeated['repeated']} of the {repeated['queries']} queries repeat another's caption"
    binding = repeated["binding"]
    if not binding:
        return f"{count}; with noise drawn for every query ({', '.join(methods)}) identical texts can rank differently."
    where = "" if binding == methods else f" under {', '.join(binding)}"
    return (
        f"{count}, and identical texts rank alike{where}: R@1 cannot pass {repeated['t2v_ceiling']:.1f} (t2v; "
        f"{repeated['t2v_tied']:.1f} where their videos tie) and {repeated['v2t_ceiling']:.1f} (v2t)."
    )


def _results(report: dict[str, Any], intervals: bool) -> str:
    lines = _header("method", "direction", *METRIC_NAMES, text=2)
    for method, directions in report["methods"].items():
        for direction, metrics in directions.items():
            spread = report.get("spread", {}).get(method, {}).get(direction, {})
            within = report.get("intervals", {}).get(method, {}).get(direction, {}) if intervals else {}
            cells = [f"{value:.1f}" + _spread(spread.get(k)) + _within(within.get(k)) for k, value in metrics.items()]
            lines.append(_row(method, direction, *cells))
    if "runs" in report:
        lines.append(f"\nMean and standard deviation over {report['runs']} sets of weights.")
    if intervals:
        lines.append(f"\nIn brackets {_bootstrap(report['bootstrap'])}; gallery and weights stay as they are.")
    return "\n".join(lines)


def _comparison(comparison: dict[str, Any], bootstrap: dict[str, Any]) -> str:
    first, second = comparison["methods"]
    lines = _header(f"{first} minus {second}", "direction", "difference", "interval", "p", text=2)
    notes = []
    for direction in ("t2v", "v2t"):
        tested = comparison[direction]
        for name, found in tested["differences"].items():
            digits = _DIGITS[name]
            ends = f"[{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"
            lines.append(_row(name, direction, f"{found['value']:+.{digits}f}", ends, f"{found['p']:.3f}"))
        notes.append(
            f"First place, {direction}: {tested['only_first']} of {tested['queries']} queries only by {first}, "
            f"{tested['only_second']} only by {second}; exact McNemar test p = {tested['mcnemar_p']:.3f}"
            + (", which takes captions of one video as independent." if tested["drawn"] < tested["queries"] else ".")
        )
    paired = f"Paired test on the same queries, {_bootstrap(bootstrap)}:\n"
    return "\n".join([paired, *lines, "", *notes])


def _leak(leak: dict[str, Any]) -> str:
    lines = [
        f"LEAKY ON PURPOSE, no result: every video pooled by its own caption, not by the query. First caption of each "
        f"of {leak['queries']} videos; {leak['left_out']} further captions left out.",
        "",
        *_header("method", "direction", "evaluation", *METRIC_NAMES, text=3),
    ]
    for method, found in leak["methods"].items():
        for direction in found["proper"]:
            for kind, form in (("proper", ".1f"), ("leaky", ".1f"), ("inflation", "+.1f")):
                cells = [format(value, form) for value in found[kind][direction].values()]
                lines.append(_row(method, direction, kind, *cells))
    return "\n".join(lines)


def _bootstrap(config: dict[str, Any]) -> str:
    drawn = "videos, each with all its captions" if config["draw"] == "videos" else "queries"
    return f"{config['confidence']:g} % bootstrap intervals over {config['resamples']:,} resamples of the {drawn}"


def _header(*names: str, text: int) -> list[str]:
    """The two lines that a markdown table starts with; columns after the first `text` are numbers."""
    return [_row(*names), "|" + "---|" * text + "---:|" * (len(names) - text)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.1f}"


def _within(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"

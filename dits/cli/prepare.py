"""`prepare`: train X-Pool and DITS for any encoder; search, evaluation and the app then find the weights."""

import argparse
import json
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, add_sources, show_notices, show_progress
from dits.common.flags import add_config_flags, config_from

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.training.prepare import MethodWeights, PreparedReport


def add(commands: "Commands") -> None:
    """Adds the command."""
    from dits.training.prepare import PrepareConfig

    prepare = add_command(commands, "prepare", _prepare, "Train X-Pool and DITS for an encoder, and evaluate them.")
    add_sources(prepare, weights=False)
    prepare.add_argument("--force", action="store_true", help="train again even if prepared weights exist")
    prepare.add_argument("--json", action="store_true", help="print JSON")
    add_config_flags(prepare, PrepareConfig, skip=("xpool_rates", "dits_rates"))


def _prepare(args: argparse.Namespace) -> None:
    from dits.training.prepare import PrepareConfig, prepare

    report = prepare(
        args.encoder,
        args.corpus,
        config=config_from(args, PrepareConfig),
        force=args.force,
        strict=args.strict,
        progress=show_progress,
        notice=lambda sentence: show_notices([sentence]),
    )
    print(json.dumps(report.as_dict(), ensure_ascii=False) if args.json else _text(report))


def _text(report: "PreparedReport") -> str:
    lines = [f"Encoder {report.encoder}, corpus {report.corpus}", ""]
    lines += [_describe(method, weights) for method, weights in report.weights.items()]
    names = list(next(iter(next(iter(report.results.values())).values()))["t2v"]) if report.results else []
    lines += ["", "| split | method | direction | " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * len(names)]
    for split, methods in report.results.items():
        for method, directions in methods.items():
            for direction, metrics in directions.items():
                cells = " | ".join(f"{value:.1f}" for value in metrics.values())
                lines.append(f"| {split} | {method} | {direction} | {cells} |")
    return "\n".join([*lines, "", "Settings and epochs were chosen on the validation split only."])


def _describe(method: str, weights: "MethodWeights") -> str:
    chosen = f"learning rate {weights.learning_rate}, epoch {weights.epoch}"
    tried = f" (tried: {' and '.join(map(str, weights.tried))})" if weights.tried else ""
    return f"{method}: {weights.origin}, on {weights.corpus}, {chosen}{tried}: {weights.path}"

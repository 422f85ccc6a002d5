"""`python -m analysis compare` and `frontier`: methods on one corpus, and alignment against ranking."""

import argparse
import sys
from pathlib import Path
from typing import Any

from dits.cli.arguments import Commands, add_sources, show_line, show_notices, show_progress, split_names
from dits.common.errors import InputError, require
from dits.common.flags import add_config_flags, config_from, whole_numbers
from dits.common.processes import default_workers

_FIXED = ("seed", "objective", "alignment_weight", "select_on")
"""Settings of a training that are not flags: the commands set them."""


def add(commands: Commands) -> None:
    """Adds both commands."""
    _add_compare(commands)
    _add_frontier(commands)


def _add_compare(commands: Commands) -> None:
    from analysis.comparison.methods import ENTRIES, MODES

    text = "train and measure all methods with the same budget on a corpus, with several seeds"
    compare = commands.add_parser("compare", help=text, description=text)
    compare.set_defaults(run=_compare)
    compare.add_argument("--methods", default=",".join(ENTRIES), help="comma-separated (default: %(default)s)")
    compare.add_argument("--modes", default=",".join(MODES), help="comma-separated (default: %(default)s)")
    compare.add_argument("--alignment-weight", type=float, default=1.0, help="of dits-aligned (default: %(default)s)")
    _add_common(compare, "1,2,3,4,24")


def _add_frontier(commands: Commands) -> None:
    text = "draw how well DITS ranks against how much of the gap it closes, on the validation split"
    frontier = commands.add_parser("frontier", help=text, description=text)
    frontier.set_defaults(run=_frontier)
    frontier.add_argument(
        "--alignment-weights", default="0.1,0.3,0.7,1.5,3", metavar="LIST", help="swept without noise (%(default)s)"
    )
    frontier.add_argument(
        "--noise-scales", default="0.1,0.25,0.5,0.75,1", metavar="LIST", help="swept without the term (%(default)s)"
    )
    frontier.add_argument("--joint", action="store_true", help="train the encoder's projections too")
    _add_common(frontier, "1,2,3")


def _add_common(parser: argparse.ArgumentParser, seeds: str) -> None:
    from analysis.comparison.preparation import BUDGET, NETWORK
    from dits.models.network import AlignmentConfig
    from dits.training.config import TrainingConfig

    add_sources(parser, weights=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report, and of its runs")
    parser.add_argument("--seeds", default=seeds, help="comma-separated (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=default_workers(), help="runs at a time, each on one core (default: %(default)s)"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default: %(default)s)")
    defaults = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in (BUDGET | NETWORK).items())
    parser.epilog = f"Defaults here, instead of those in the list: {defaults}."
    add_config_flags(parser, TrainingConfig, skip=_FIXED)
    add_config_flags(parser, AlignmentConfig, skip=("dim",))


def _compare(args: argparse.Namespace) -> None:
    from analysis.comparison.execution import results_of
    from analysis.comparison.methods import MODES, entries_named
    from analysis.comparison.preparation import shown_command, shown_name
    from analysis.comparison.report import About, write_comparison
    from analysis.comparison.runs import Run
    from dits.evaluation.significance import BootstrapConfig

    entries = entries_named(split_names(args.methods), args.alignment_weight)
    modes = split_names(args.modes)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InputError(f"There is no mode '{', '.join(unknown)}': choose from {', '.join(MODES)}.")
    seeds = whole_numbers(args.seeds, "seeds")
    bootstrap = BootstrapConfig(resamples=args.resamples)
    plan = _plan(args, "joint" in modes, "test")
    runs = [Run(entry, mode, seed) for seed in seeds for mode in modes for entry in entries]
    results, failures = results_of(plan, runs, args.out / "runs", args.jobs, show_line)
    about = About(shown_name(args.corpus), shown_command(sys.argv[1:]))
    print(f"Wrote {write_comparison(args.out, plan, entries, results, failures, seeds, about, bootstrap)}")


def _frontier(args: argparse.Namespace) -> None:
    from analysis.comparison.execution import results_of
    from analysis.comparison.frontier import points_of, settings_of
    from analysis.comparison.frontier_report import write_frontier
    from analysis.comparison.preparation import shown_command, shown_name
    from analysis.comparison.report import About
    from analysis.comparison.runs import Run
    from dits.evaluation.significance import BootstrapConfig

    settings = settings_of(
        _numbers(args.alignment_weights, "alignment weights"), _numbers(args.noise_scales, "noise scales")
    )
    seeds = whole_numbers(args.seeds, "seeds")
    bootstrap = BootstrapConfig(resamples=args.resamples)
    plan = _plan(args, args.joint, "validation")
    mode = "joint" if args.joint else "frozen"
    runs = [Run(setting.entry, mode, seed) for seed in seeds for setting in settings]
    results, failures = results_of(plan, runs, args.out / "runs", args.jobs, show_line)
    points = points_of(plan, settings, results, bootstrap)
    about = About(shown_name(args.corpus), shown_command(sys.argv[1:]))
    print(f"Wrote {write_frontier(args.out, plan, points, failures, mode, seeds, about)}")


def _plan(args: argparse.Namespace, joint: bool, split: str) -> Any:
    from analysis.comparison.preparation import BUDGET, NETWORK, prepare
    from dits.common.files import make_folder
    from dits.models.network import AlignmentConfig
    from dits.training.config import TrainingConfig

    training = config_from(args, TrainingConfig, BUDGET, alignment_weight=0.0)
    require(args.jobs >= 1, f"--jobs must be 1 or more, not {args.jobs}.")
    make_folder(args.out)
    return prepare(
        args.corpus, args.encoder, training, lambda dim: config_from(args, AlignmentConfig, NETWORK, dim=dim), joint,
        split, show_progress, lambda sentence: show_notices([sentence]), args.strict,
    )  # fmt: skip


def _numbers(text: str, name: str) -> list[float]:
    """A comma-separated list of distinct numbers above 0.

    Raises:
        InputError: the list is empty, has a duplicate, or something that is not such a number.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"The {name} must be numbers separated by commas, not '{text}'.") from error
    require(
        all(0 < number < float("inf") for number in numbers) and len(set(numbers)) == len(numbers),
        f"The {name} '{text}' must be different numbers above 0.",
    )
    return numbers

"""`data`: list the benchmarks, and check which files of a dataset are present."""

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, check_target, show_progress
from dits.common.errors import InputError, require
from dits.video.workers import SECONDS_PER_FILE

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.corpora.datasets import LoadedDataset

_INCOMPLETE = 1


def add(commands: "Commands") -> None:
    """Adds the command, with its subcommands."""
    text = "List benchmarks, and check datasets for missing files."
    actions = commands.add_parser("data", help=text, description=text).add_subparsers(required=True, metavar="ACTION")
    listing = add_command(actions, "list", _list, "List the supported benchmarks.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    check = add_command(
        actions, "check", _check,
        "Check a dataset for missing and undecodable videos. The exit code is 0 if it is complete, 1 if anything is "
        "missing or does not decode, 2 if the files cannot be used.",
    )  # fmt: skip
    check.add_argument("name", metavar="NAME", help="a name from `data list`, or a CSV file of videos and captions")
    check.add_argument("--root", type=Path, metavar="DIR", help="folder of the videos")
    check.add_argument("--annotations", type=Path, metavar="DIR", help="folder of the annotations (default: --root)")
    check.add_argument("--decode", action="store_true", help="decode two frames of every video")
    check.add_argument(
        "--seconds", type=int, default=SECONDS_PER_FILE, help="time limit per video (default: %(default)s)"
    )
    check.add_argument("--workers", type=int, help="number of decoding processes (default: one per core, at most 8)")
    check.add_argument("--out", type=Path, metavar="FILE.csv", help="write the list of all problems to this file")
    check.add_argument("--json", action="store_true", help="print JSON")


def _list(args: argparse.Namespace) -> None:
    from dits.corpora.corpus import SPLITS
    from dits.corpora.datasets import DATASETS

    if args.json:
        fields = ("name", "title", "obtain", "videos", "source")
        print(json.dumps([{name: getattr(dataset, name) for name in fields} for dataset in DATASETS.values()]))
        return
    rows: list[tuple[str, ...]] = [("name", "dataset", *SPLITS)]
    for dataset in DATASETS.values():
        rows.append((dataset.name, dataset.title, *(str(dataset.videos.get(split, "")) for split in SPLITS)))
    rows.append(("FILE.csv", "your own videos: columns video, caption", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nThe numbers are of videos, if known. Use a dataset with --corpus NAME:FOLDER or --corpus FILE.csv.")


def _check(args: argparse.Namespace) -> int:
    from dits.corpora.datasets.annotations import MissingAnnotationsError
    from dits.corpora.datasets.report import report_on, report_table, write_problems
    from dits.corpora.decode_check import undecodable

    check_target(args.out)
    require(args.workers is None or args.workers >= 1, "--workers must be 1 or more.")
    require(args.seconds >= 1, "--seconds must be 1 or more.")
    try:
        loaded, root, expected = _locate(args)
    except MissingAnnotationsError as error:
        print(json.dumps({"complete": False, "missing_annotations": str(error)}) if args.json else str(error))
        return _INCOMPLETE
    reasons = None
    if args.decode:
        reasons = undecodable(loaded.corpus.clips, partial(show_progress, "Decoding"), args.workers, args.seconds)
    report = report_on(loaded, root, expected, reasons)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if args.json else report_table(report))
    if args.out:
        problems = write_problems(report, args.out)
        if not args.json:
            print(f"Wrote {problems} problems to {args.out}")
    return 0 if report.complete else _INCOMPLETE


def _locate(args: argparse.Namespace) -> tuple["LoadedDataset", Path, Mapping[str, int]]:
    """The dataset of the flags, the folder of its videos, and the known number of videos of each split."""
    from dits.corpora.datasets.registry import find_dataset, locate_dataset
    from dits.corpora.datasets.table import locate_table

    if args.name.lower().endswith(".csv"):
        require(not args.annotations, "A CSV file needs no annotations: leave --annotations out.")
        table = Path(args.name)
        return locate_table(table, args.root), args.root or table.parent, {}
    dataset = find_dataset(args.name)
    if args.root is None:
        raise InputError(f"Give the folder of the videos: python -m dits data check {args.name} --root DIR.")
    return locate_dataset(dataset, args.root, args.annotations), args.root, dataset.videos

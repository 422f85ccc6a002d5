"""`data`: what there is of a benchmark, or of one's own videos, and what is missing."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, check_target, show_progress
from dits.common.errors import InputError
from dits.corpora.decode_check import SECONDS

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.corpora.datasets import LoadedDataset

_INCOMPLETE = 1


def add(commands: "Commands") -> None:
    """Adds the command, with its subcommands."""
    text = "Benchmarks and own videos: what is there, and what is missing."
    whats = commands.add_parser("data", help=text, description=text).add_subparsers(required=True, metavar="WHAT")
    listing = add_command(whats, "list", _list, "List the benchmarks that can be read.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    check = add_command(
        whats, "check", _check,
        "Say what is found of a dataset, what is missing, and what does not decode. The exit code is 0 where it is "
        "complete, 1 where anything is missing or does not decode, 2 where the files cannot be used.",
    )  # fmt: skip
    check.add_argument("name", metavar="NAME", help="one that `data list` names, or a CSV of videos and captions")
    check.add_argument("--root", type=Path, metavar="DIR", help="the folder of the videos")
    check.add_argument("--annotations", type=Path, metavar="DIR", help="that of the annotations (default: the same)")
    check.add_argument("--decode", action="store_true", help="decode two frames of every video")
    check.add_argument(
        "--seconds", type=int, default=SECONDS, help="how long a video may take to decode (default: %(default)s)"
    )
    check.add_argument("--workers", type=int, help="processes to decode with (default: one a core, up to 8)")
    check.add_argument("--out", type=Path, metavar="FILE.csv", help="write the list of all problems here")
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
    print(
        "\nThe numbers are of videos, as far as they are known. Use one as --corpus NAME:FOLDER, or --corpus FILE.csv."
    )


def _check(args: argparse.Namespace) -> int:
    from dits.corpora.datasets.annotations import MissingAnnotationsError
    from dits.corpora.datasets.report import report_on, report_table, write_problems
    from dits.corpora.decode_check import undecodable

    check_target(args.out)
    if args.workers is not None and args.workers < 1:
        raise InputError("--workers must be 1 or more.")
    if args.seconds < 1:
        raise InputError("--seconds must be 1 or more.")
    try:
        loaded, root, usual = _located(args)
    except MissingAnnotationsError as error:
        print(json.dumps({"complete": False, "missing_annotations": str(error)}) if args.json else str(error))
        return _INCOMPLETE
    reasons = None
    if args.decode:
        reasons = undecodable(
            loaded.corpus.clips,
            lambda done, total: show_progress("Decoding", done, total),
            args.workers,
            args.seconds,
        )
    report = report_on(loaded, root, usual, reasons)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if args.json else report_table(report))
    if args.out:
        problems = write_problems(report, args.out)
        if not args.json:
            print(f"Wrote {problems} problems to {args.out}")
    return 0 if report.complete else _INCOMPLETE


def _located(args: argparse.Namespace) -> tuple["LoadedDataset", Path, Mapping[str, int]]:
    """The dataset that the flags name, the folder of its videos, and how many of them its splits usually have."""
    from dits.corpora.datasets.registry import find_dataset, locate_dataset
    from dits.corpora.datasets.table import locate_table

    if args.name.lower().endswith(".csv"):
        if args.annotations:
            raise InputError("A CSV file is its own annotations: leave --annotations out.")
        table = Path(args.name)
        return locate_table(table, args.root), args.root or table.parent, {}
    dataset = find_dataset(args.name)
    if args.root is None:
        raise InputError(f"Name the folder of the videos: python -m dits data check {args.name} --root DIR.")
    return locate_dataset(dataset, args.root, args.annotations), args.root, dataset.videos

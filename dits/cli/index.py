"""`index`: embed your own videos once, to search them later."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dits.cli.arguments import add_command, add_encoder, as_json, check_target, show_line, show_notices
from dits.common.errors import InputError
from dits.common.flags import add_config_flags, config_from
from dits.corpora.index_location import DEFAULT

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.encoders.openclip import OpenClipEncoder
    from dits.index.adding.config import AddConfig, AddProgress
    from dits.index.adding.local import Backend
    from dits.index.adding.run import AddReport
    from dits.index.store import VideoIndex


def add(commands: "Commands") -> None:
    """Adds the commands."""
    from pathlib import Path

    from dits.index.adding.config import AddConfig

    text = "Embed your own videos; search them with `search --corpus DIR`."
    actions = commands.add_parser("index", help=text, description=text).add_subparsers(required=True, metavar="ACTION")

    add = _add_action(actions, "add", _add, "Embed new and changed videos among files and in folders.")
    add.add_argument("paths", nargs="+", metavar="PATH", help="file or folder")
    add_config_flags(add, AddConfig)
    _add_cluster_flags(add)

    update = _add_action(actions, "update", _update, "Add again everything that was added before.")
    add_config_flags(update, AddConfig, skip=("segment",))
    _add_cluster_flags(update)

    remove = _add_action(actions, "remove", _remove, "Remove files and folders from the index; your files stay.")
    remove.add_argument("paths", nargs="+", metavar="PATH", help="file or folder")

    status = _add_action(actions, "status", _status, "Show the contents of the index, and the failures.")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument("--recall", action="store_true", help="measure the recall of the vector index")

    optimize = _add_action(
        actions, "optimize", _optimize, "Merge small files, and index large tables for vector search."
    )
    optimize.add_argument("--vector-index", action="store_true", help="make the vector index for any number of videos")

    export = _add_action(actions, "export", _export, "Write rows as CSV, or rows and embeddings as safetensors.")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .safetensors file")


def _add_action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = add_command(actions, name, run, text)
    location = "folder, or URL on object storage (default: in your data folder)"
    parser.add_argument("--index", metavar="DIR", default=DEFAULT, help=location)
    add_encoder(parser)
    return parser


def _add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray", metavar="ADDRESS",
        help="use the Ray cluster at HOST:PORT or 'auto'; all machines must find the videos under the same paths; "
        "--workers is then the number of readers on the whole cluster",
    )  # fmt: skip
    parser.add_argument(
        "--encoders", type=int, default=0, metavar="N",
        help="with --ray: number of encoders (default: one per GPU, or one per four CPUs)",
    )  # fmt: skip


@contextmanager
def _backend(args: argparse.Namespace, encoder: "OpenClipEncoder", config: "AddConfig") -> "Iterator[Backend | None]":
    """The backend of the flags; None is this machine."""
    from dits.index.adding.ray import RayBackend
    from dits.index.cluster import ray_connection

    if args.encoders < 0 or (args.encoders and not args.ray):
        raise InputError("--encoders is for a Ray cluster: give 1 or more, and --ray ADDRESS.")
    if not args.ray:
        yield None
        return
    with ray_connection(args.ray) as ray:
        yield RayBackend(ray, args.encoder, encoder, config, args.encoders)


def _open_index(args: argparse.Namespace, create: bool = False) -> "tuple[VideoIndex, OpenClipEncoder]":
    from dits.corpora.index_location import location_of
    from dits.encoders.openclip import load_encoder
    from dits.index.store import VideoIndex

    encoder, location = load_encoder(args.encoder), location_of(args.index)
    return (VideoIndex.create if create else VideoIndex.open)(location, encoder), encoder


def _add(args: argparse.Namespace) -> int:
    from dits.index.adding.config import AddConfig
    from dits.index.adding.run import add_videos
    from dits.index.scan import check_paths

    config = config_from(args, AddConfig)
    check_paths(args.paths)
    index, encoder = _open_index(args, create=True)
    with _backend(args, encoder, config) as backend:
        report = add_videos(index, encoder, args.paths, config, _ProgressLine(), backend)
    return _report(index, report)


def _update(args: argparse.Namespace) -> int:
    from dits.index.adding.config import AddConfig
    from dits.index.adding.run import update_index

    config = config_from(args, AddConfig)
    index, encoder = _open_index(args)
    with _backend(args, encoder, config) as backend:
        report = update_index(index, encoder, config, _ProgressLine(), backend)
    return _report(index, report)


def _remove(args: argparse.Namespace) -> None:
    from dits.index.adding.config import pluralise
    from dits.index.adding.run import remove_videos

    index, _ = _open_index(args)
    print(f"Removed {pluralise(remove_videos(index, args.paths), 'file')} from {index.location}.")


def _status(args: argparse.Namespace) -> None:
    from dits.index.status import status_of
    from dits.search.recall import candidate_recall

    index, encoder = _open_index(args)
    status = status_of(index, candidate_recall(index, encoder) if args.recall else None)
    print(as_json(status.as_dict()) if args.json else status.as_text())


def _optimize(args: argparse.Namespace) -> None:
    from dits.search.candidates import make_vector_index

    index, _ = _open_index(args)
    index.compact(always=True)
    print(make_vector_index(index, always=args.vector_index))


def _export(args: argparse.Namespace) -> None:
    from dits.index.adding.config import pluralise
    from dits.index.export import FORMATS, export_index

    if args.out.suffix not in FORMATS:
        raise InputError(f"{args.out} is neither a .csv nor a .safetensors file: give a name that ends in one of them.")
    check_target(args.out)
    index, _ = _open_index(args)
    print(f"Wrote {pluralise(export_index(index, args.out), 'segment')} to {args.out}.")


def _report(index: "VideoIndex", report: "AddReport") -> int:
    show_notices(report.notices)
    print(f"{index.location}: {report.as_text()}.")
    if report.failed:
        show_line("`python -m dits index status` lists the failed files, with reasons.")
    return 0


class _ProgressLine:
    """Shows progress: on a terminal one line that is overwritten, elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self._last_time = float("-inf")

    def __call__(self, progress: "AddProgress") -> None:
        terminal, now = sys.stderr.isatty(), time.monotonic()
        last = progress.done == progress.files
        if not terminal and not (progress.done or progress.segments):
            return
        if now - self._last_time < (0.2 if terminal else 10.0) and not last:
            return
        self._last_time = now
        text = f"Embedding videos: {progress.done}/{progress.files}, {progress.pace}"
        if terminal:
            print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            show_line(text)

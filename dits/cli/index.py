"""`index`: one's own videos, embedded once and searched from then on."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dits.cli.arguments import add_command, as_json, check_target, show_notices
from dits.common.errors import InputError
from dits.common.flags import add_config_flags, config_from
from dits.corpora.index_location import DEFAULT

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.encoders.openclip import OpenClipEncoder
    from dits.index.adding.config import AddConfig, AddProgress
    from dits.index.adding.local import Work
    from dits.index.adding.run import AddReport
    from dits.index.store import VideoIndex


def add(commands: "Commands") -> None:
    """Adds the commands."""
    from pathlib import Path

    from dits.index.adding.config import AddConfig

    parser = commands.add_parser(
        "index", help="Embed your own videos; search them with `search --corpus DIR`.",
        description="Embed your own videos, once, and search them with `python -m dits search --corpus DIR`.",
    )  # fmt: skip
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    adding = _action(actions, "add", _add, "Embed videos, or those in folders; what is unchanged is passed over.")
    adding.add_argument("paths", nargs="+", metavar="PATH")
    add_config_flags(adding, AddConfig)
    _add_cluster_flags(adding)

    updating = _action(actions, "update", _update, "Look again at everything that was added.")
    add_config_flags(updating, AddConfig, skip=("segment",))
    _add_cluster_flags(updating)

    removing = _action(actions, "remove", _remove, "Forget files, or everything below folders; no file is touched.")
    removing.add_argument("paths", nargs="+", metavar="PATH")

    status = _action(actions, "status", _status, "Say what the index holds, and what failed.")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument(
        "--recall", action="store_true", help="compare candidates from the vector index with the exact ranking"
    )

    optimising = _action(
        actions, "optimize", _optimise, "Merge small files, and make the vector index of large tables."
    )
    optimising.add_argument("--vector-index", action="store_true", help="make it however few videos there are")

    exporting = _action(actions, "export", _export, "Write rows as CSV, or rows and embeddings as safetensors.")
    exporting.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .safetensors file")


def _action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = add_command(actions, name, run, text)
    parser.add_argument(
        "--index",
        metavar="DIR",
        default=DEFAULT,
        help="folder, or URL on object storage (default: in your data folder)",
    )
    parser.add_argument("--encoder", default="bundled", help="bundled, or an OpenCLIP model: ViT-B-32/openai")
    return parser


def _add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray", metavar="ADDRESS",
        help="read and embed on the machines of a Ray cluster, at HOST:PORT or 'auto'; all of them must find the "
        "videos under the same paths, so they lie on shared storage; --workers counts the readers of the whole cluster",
    )  # fmt: skip
    parser.add_argument(
        "--encoders", type=int, default=0, metavar="N",
        help="with --ray: processes that embed (default one a GPU, or one for four CPUs)",
    )  # fmt: skip


@contextmanager
def _work(args: argparse.Namespace, encoder: "OpenClipEncoder", config: "AddConfig") -> "Iterator[Work | None]":
    """Who reads and embeds, as the flags say; None is this machine."""
    from dits.index.adding.ray import RayWork
    from dits.index.cluster import connected

    if args.encoders < 0 or (args.encoders and not args.ray):
        raise InputError("--encoders counts processes of a Ray cluster: give 1 or more, and --ray ADDRESS.")
    if not args.ray:
        yield None
        return
    with connected(args.ray) as ray:
        yield RayWork(ray, args.encoder, encoder, config, args.encoders)


def _opened(args: argparse.Namespace, create: bool = False) -> "tuple[VideoIndex, OpenClipEncoder]":
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
    index, encoder = _opened(args, create=True)
    with _work(args, encoder, config) as work:
        report = add_videos(index, encoder, args.paths, config, _Line(), work)
    return _report(index, report)


def _update(args: argparse.Namespace) -> int:
    from dits.index.adding.config import AddConfig
    from dits.index.adding.run import update_index

    config = config_from(args, AddConfig)
    index, encoder = _opened(args)
    with _work(args, encoder, config) as work:
        report = update_index(index, encoder, config, _Line(), work)
    return _report(index, report)


def _remove(args: argparse.Namespace) -> None:
    from dits.index.adding.config import counted
    from dits.index.adding.run import remove_videos

    index, _ = _opened(args)
    print(f"Removed {counted(remove_videos(index, args.paths), 'file')} from {index.location}.")


def _status(args: argparse.Namespace) -> None:
    from dits.index.status import status_of
    from dits.search.recall import candidate_recall

    index, encoder = _opened(args)
    status = status_of(index, candidate_recall(index, encoder) if args.recall else None)
    print(as_json(status.as_dict()) if args.json else status.as_text())


def _optimise(args: argparse.Namespace) -> None:
    from dits.search.candidates import make_vector_index

    index, _ = _opened(args)
    index.compact(always=True)
    print(make_vector_index(index, always=args.vector_index))


def _export(args: argparse.Namespace) -> None:
    from dits.index.adding.config import counted
    from dits.index.export import FORMATS, export_index

    if args.out.suffix not in FORMATS:
        raise InputError(f"{args.out} is neither a .csv nor a .safetensors file: name one.")
    check_target(args.out)
    index, _ = _opened(args)
    print(f"Wrote {counted(export_index(index, args.out), 'segment')} to {args.out}.")


def _report(index: "VideoIndex", report: "AddReport") -> int:
    show_notices(report.notices)
    print(f"{index.location}: {report.as_text()}.")
    if report.failed:
        print("`python -m dits index status` lists what failed, with reasons.", file=sys.stderr)
    return 0


class _Line:
    """Progress as a line that is drawn over on a terminal, and as one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._drawn = float("-inf")

    def __call__(self, progress: "AddProgress") -> None:
        terminal, now = sys.stderr.isatty(), time.monotonic()
        last = progress.done == progress.files
        if not terminal and not (progress.done or progress.segments):
            return
        if now - self._drawn < (0.2 if terminal else 10.0) and not last:
            return
        self._drawn = now
        text = f"Embedding videos: {progress.done}/{progress.files}, {progress.pace}"
        if terminal:
            print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

"""What the commands share: the flags that name corpus, encoder and weights, and how progress is shown."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dits.common.errors import InputError, require
from dits.common.flags import config_from
from dits.common.terminal import printable
from dits.models.retrieval import METHODS

if TYPE_CHECKING:
    from dits.corpora.corpus import Corpus
    from dits.models.retrieval import ModelConfig


class Commands(Protocol):
    """What commands are added to: argparse's subparsers."""

    def add_parser(self, name: str, *, help: str, description: str | None) -> argparse.ArgumentParser:
        """A parser for the command of a name."""


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    """Adds a command that `run` carries out, with one sentence of help. What `run` returns is the exit code."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run_command=run)
    return parser


def add_sources(parser: argparse.ArgumentParser, weights: bool = True) -> None:
    """Adds the flags that name a corpus, an encoder and, where `weights`, a folder of trained weights."""
    parser.add_argument(
        "--corpus", default="demo", metavar="NAME",
        help="demo (default), a folder with captions.csv, a CSV of videos and captions, or a benchmark as NAME:FOLDER "
        "(python -m dits data list)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="a missing video, or one without captions, is an error, not a notice"
    )
    parser.add_argument("--encoder", default="bundled", help="bundled, or an OpenCLIP model: ViT-B-32/openai")
    if weights:
        parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with xpool and dits.safetensors")


def method_names(names: str) -> list[str]:
    """The methods of a comma-separated list.

    Raises:
        InputError: one is unknown, or there is none.
    """
    methods = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(f"There is no method '{', '.join(unknown)}': choose from {', '.join(METHODS)}.")
    return methods


def check_target(path: Path | None) -> None:
    """Says before the work, not after it, that its result cannot be written.

    Raises:
        InputError: the path is a folder.
        StorageError: its folder cannot be written.
    """
    from dits.common.files import make_folder

    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file to write.")
    make_folder(path.parent)


def named_corpus(args: argparse.Namespace) -> "Corpus":
    """The corpus that the flags name; what is missing in it is told on the error stream.

    Raises:
        DitsError: see `dits.corpora.names.open_corpus`.
    """
    from dits.corpora.names import open_corpus

    return open_corpus(args.corpus, show_progress, lambda sentence: show_notices([sentence]), args.strict)


def as_json(value: Any) -> str:
    """A value as JSON for a terminal: readable in any script, with what is no text (in the names of files) escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def show_notices(notices: Sequence[str]) -> None:
    """Sentences that are no results, on the error stream."""
    for notice in notices:
        print(f"dits: {printable(notice)}", file=sys.stderr)


def show_embedding(done: int, total: int) -> None:
    """Progress of embedding clips."""
    show_progress("Embedding the clips", done, total)


def show_progress(what: str, done: int, total: int) -> None:
    """A line on a terminal that is drawn over; elsewhere a line every tenth."""
    if total <= 1:
        return
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


def model_config_from(args: argparse.Namespace, dim: int) -> "ModelConfig":
    """The model that the flags describe, for embeddings of a width.

    Raises:
        InputError: a value is out of range, or a flag is given that mean pooling does not read.
    """
    from dits.models.retrieval import PARTS, ModelConfig

    fixed: dict[str, dict[str, Any]] = {"pooling": {"dim": dim, "heads": 1}, "network": {"dim": dim}}
    names = ("pooling", *METHODS[args.method].parts)
    if getattr(args, "kind", None) == "mean":
        unread = {"--attend-with": getattr(args, "attend_with", None), "--dropout": args.dropout}
        given = [flag for flag, value in unread.items() if value is not None]
        require(not given, f"{' and '.join(given)}: mean pooling does not read this, leave it out with --kind mean.")
    return ModelConfig(args.method, **{name: config_from(args, PARTS[name], **fixed.get(name, {})) for name in names})

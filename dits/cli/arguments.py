"""Shared parts of the commands: flags for corpus, encoder and weights, progress and notices."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dits.cli.progress import ProgressDisplay
from dits.common.errors import InputError, require
from dits.common.flags import config_from
from dits.common.terminal import printable
from dits.models.retrieval import METHODS

if TYPE_CHECKING:
    from dits.corpora.corpus import Corpus
    from dits.models.retrieval import ModelConfig

_PROGRESS = ProgressDisplay()


class Commands(Protocol):
    """The interface of argparse's subparsers, to which commands are added."""

    def add_parser(self, name: str, *, help: str, description: str | None) -> argparse.ArgumentParser:
        """Adds a parser for a command."""


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    """Adds a command that calls `run`, whose result is the exit code. `text` is the help text, one sentence."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run_command=run)
    return parser


def add_sources(parser: argparse.ArgumentParser, weights: bool = True) -> None:
    """Adds the flags for a corpus, an encoder and, if `weights`, a folder of trained weights."""
    parser.add_argument(
        "--corpus", default="demo", metavar="NAME",
        help="demo (default), a folder with captions.csv, a CSV file of videos and captions, or a benchmark as "
        "NAME:FOLDER (see `data list`)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="fail if a video is missing or has no captions")
    add_encoder(parser)
    if weights:
        parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with xpool and dits.safetensors")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Adds the flag for an encoder."""
    parser.add_argument("--encoder", default="bundled", help="bundled (default), or an OpenCLIP model: ViT-B-32/openai")


def method_names(names: str) -> list[str]:
    """The methods of a comma-separated list.

    Raises:
        InputError: a method is unknown, or the list is empty.
    """
    methods = split_names(names)
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(f"There is no method '{', '.join(unknown)}': choose from {', '.join(METHODS)}.")
    return methods


def split_names(names: str) -> list[str]:
    """The names of a comma-separated list, without spaces around them."""
    return [name.strip() for name in names.split(",") if name.strip()]


def check_target(path: Path | None) -> None:
    """Checks that an output file can be written, before the work; makes its folder.

    Raises:
        InputError: the path is a folder.
        StorageError: the folder of the file cannot be written.
    """
    from dits.common.files import make_folder

    if path is not None:
        require(not path.is_dir(), f"{path} is a folder: name a file to write.")
        make_folder(path.parent)


def corpus_from(args: argparse.Namespace) -> "Corpus":
    """Opens the corpus of the flags. Notices on missing parts go to the error stream.

    Raises:
        DitsError: see `dits.corpora.names.open_corpus`.
    """
    return named_corpus(args.corpus, args.strict)


def named_corpus(name: str, strict: bool = False) -> "Corpus":
    """`corpus_from` for the name of a corpus."""
    from dits.corpora.names import open_corpus

    return open_corpus(name, show_progress, lambda sentence: show_notices([sentence]), strict)


def as_json(value: Any) -> str:
    """A value as JSON for a terminal. Only lone surrogates (from file names that are not UTF-8) are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def show_notices(notices: Sequence[str]) -> None:
    """Prints notices on the error stream."""
    for notice in notices:
        print(f"dits: {printable(notice)}", file=sys.stderr)


def show_line(line: str) -> None:
    """Prints a line on the error stream at once."""
    print(line, file=sys.stderr, flush=True)


def show_embedding(done: int, total: int) -> None:
    """Shows the progress of embedding clips."""
    show_progress("Embedding the clips", done, total)


def show_progress(label: str, done: int, total: int) -> None:
    """Shows the progress of a task; see `dits.cli.progress.ProgressDisplay`."""
    _PROGRESS(label, done, total)


def model_config_from(args: argparse.Namespace, dim: int) -> "ModelConfig":
    """The configuration of the model that the flags describe, for embeddings of dimension `dim`.

    Raises:
        InputError: a value is out of range, or a flag is given that mean pooling does not use.
    """
    from dits.models.retrieval import PARTS, ModelConfig

    fixed: dict[str, dict[str, Any]] = {"pooling": {"dim": dim, "heads": 1}, "network": {"dim": dim}}
    names = ("pooling", *METHODS[args.method].parts)
    if getattr(args, "kind", None) == "mean":
        unused = {"--attend-with": getattr(args, "attend_with", None), "--dropout": args.dropout}
        given = [flag for flag, value in unused.items() if value is not None]
        require(not given, f"{' and '.join(given)}: mean pooling does not use this, leave it out with --kind mean.")
    return ModelConfig(args.method, **{name: config_from(args, PARTS[name], **fixed.get(name, {})) for name in names})

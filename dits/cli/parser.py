"""Text-video retrieval with DITS: data, search, evaluation, training and analysis."""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dits.cli import ablate, corpus, data, encoder, evaluate, index, prepare, search, train
from dits.common.errors import DitsError
from dits.common.memory import memory_errors
from dits.common.terminal import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit code: 2 after an error message of one sentence, 130 after an interrupt."""
    args = _parser().parse_args(arguments)
    try:
        with memory_errors():
            code: int = args.run_command(args) or 0
        sys.stdout.flush()
        return code
    except DitsError as error:
        print(f"dits: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dits: interrupted. Nothing is half-written; run the command again.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


_EXTENSIONS = ("analysis.cli.analyse",)
"""Commands of packages that build on this one, if they are installed."""


def _parser() -> argparse.ArgumentParser:
    prog = "dits" if Path(sys.argv[0]).stem == "dits" else "python -m dits"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (corpus, data, index, search, evaluate, prepare, encoder, train, ablate):
        module.add(commands)
    for name in _EXTENSIONS:
        if _is_installed(name):
            importlib.import_module(name).add(commands)
    return parser


def _is_installed(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # a package of the same name, but not ours
        return importlib.util.find_spec(module) is not None
    return False

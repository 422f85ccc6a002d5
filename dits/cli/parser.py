"""The command line: build the demo corpus, check data, search, evaluate, train, embed, analyse."""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from dits.cli import ablate, corpus, data, encoder, evaluate, index, prepare, search, train
from dits.common.errors import DitsError
from dits.common.memory import memory_errors
from dits.common.terminal import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code, or 2 after one sentence on what is wrong, or 130 when interrupted."""
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
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


_EXTENSIONS = ("analysis.cli.analyse",)
"""Commands of packages that build on this one, taken in where they are installed."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dits", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (corpus, data, index, search, evaluate, prepare, encoder, train, ablate):
        module.add(commands)
    for name in _EXTENSIONS:
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name).add(commands)
    return parser

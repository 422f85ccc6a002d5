"""The command line: build the demo corpus, search, evaluate, train, embed."""

import argparse
import os
import sys
from collections.abc import Sequence

from dits.commands import corpus, encoder, evaluate, prepare, search, train
from dits.errors import DitsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 2 after one sentence on what is wrong, or 130 when interrupted."""
    args = _parser().parse_args(arguments)
    try:
        args.run_command(args)
        sys.stdout.flush()
        return 0
    except DitsError as error:
        print(f"dits: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dits: interrupted. Nothing is half-written; run the command again.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dits", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (corpus, search, evaluate, prepare, encoder, train):
        module.add(commands)
    return parser

"""`search`: rank the videos of a corpus for a sentence."""

import argparse
import os
from typing import TYPE_CHECKING

from dits.commands.common import add_command, add_sources, as_json, show_notices, show_progress
from dits.model import METHODS

if TYPE_CHECKING:
    from dits.commands.common import Commands


def add(commands: "Commands") -> None:
    """Adds the command."""
    search = add_command(commands, "search", _search, "Rank the videos of a corpus for a sentence.")
    search.add_argument("text")
    add_sources(search)
    search.add_argument("--method", choices=tuple(METHODS), default="dits")
    search.add_argument("--top", type=int, default=5, help="how many results (default 5)")
    search.add_argument("--json", action="store_true", help="print JSON")


def _search(args: argparse.Namespace) -> None:
    from dits.index.scan import shown
    from dits.search import load_engine

    engine = load_engine(args.corpus, args.encoder, (args.method,), args.weights, show_progress, strict=args.strict)
    show_notices(engine.notices)
    result = engine.search(args.text, args.method, args.top)
    if args.json:
        print(as_json(result.as_dict()))
        return
    show_notices([result.notice] if result.notice else [])
    for hit in result.hits:
        print(f"{hit.rank:>3}  {hit.score:.3f}  {hit.deviations:+.1f} sd  {hit.clip.id}  at {hit.best_moment:.1f} s")
        print(f"     {hit.clip.title if hit.clip.captions else shown(os.fsencode(hit.clip.path))}")

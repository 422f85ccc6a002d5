"""`search`: rank the videos of a corpus for a query."""

import argparse
import os
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, add_sources, as_json, show_notices, show_progress
from dits.common.errors import require
from dits.common.terminal import printable
from dits.models.retrieval import METHODS

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.search.results import SearchResult


def add(commands: "Commands") -> None:
    """Adds the command."""
    search = add_command(commands, "search", _search, "Rank the videos of a corpus for a query.")
    search.add_argument("text", help="the query")
    add_sources(search)
    search.add_argument("--method", choices=tuple(METHODS), default="dits", help="default: dits")
    search.add_argument("--top", type=int, default=5, help="number of results (default: 5)")
    search.add_argument("--json", action="store_true", help="print JSON")
    search.add_argument(
        "--ray", metavar="ADDRESS",
        help="search an index on the Ray cluster at HOST:PORT or 'auto'; it must be on shared or object storage",
    )  # fmt: skip
    shards = "with --ray: number of shards of the index (default: one per GPU or machine)"
    search.add_argument("--shards", type=int, default=0, metavar="N", help=shards)
    partial = "with --ray: if shards fail, rank the others and print a notice"
    search.add_argument("--partial", action="store_true", help=partial)


def _search(args: argparse.Namespace) -> None:
    from dits.index.scan import path_text

    result = _search_on_cluster(args) if args.ray else _search_locally(args)
    if args.json:
        print(as_json(result.as_dict()))
        return
    show_notices([result.notice] if result.notice else [])
    show_notices([f"The ranking is partial: {sentence}" for sentence in result.missing])
    for hit in result.hits:
        name, text = hit.clip.id, hit.clip.title if hit.clip.captions else path_text(os.fsencode(hit.clip.path))
        score = f"{hit.score:.3f}  {hit.deviations:+.1f} sd"
        print(f"{hit.rank:>3}  {score}  {printable(name)}  at {hit.best_moment:.1f} s")
        print(f"     {printable(text)}")


def _search_locally(args: argparse.Namespace) -> "SearchResult":
    from dits.search.loading import load_engine

    require(not (args.shards or args.partial), "--shards and --partial are for a Ray cluster: add --ray ADDRESS.")
    engine = load_engine(args.corpus, args.encoder, (args.method,), args.weights, show_progress, strict=args.strict)
    show_notices(engine.notices)
    return engine.search(args.text, args.method, args.top)


def _search_on_cluster(args: argparse.Namespace) -> "SearchResult":
    from dits.search.shards import ShardConfig, open_shards

    config = ShardConfig(args.shards, args.partial)
    sources = (args.corpus, args.encoder, args.method, args.weights)
    with open_shards(args.ray, *sources, config, show_progress) as search:
        return search.search(args.text, args.top)

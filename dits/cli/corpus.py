"""`demo` and `encode`: build the demo corpus, and embed a corpus."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, add_sources, check_target, corpus_from, show_embedding, show_progress
from dits.common.errors import require

if TYPE_CHECKING:
    from dits.cli.arguments import Commands


def add(commands: "Commands") -> None:
    """Adds the commands."""
    demo = add_command(commands, "demo", _demo, "Build the demo corpus in the cache folder, or its missing clips.")
    demo.add_argument("--workers", type=int, help="number of processes (default: one per core, at most 8)")
    encode = add_command(commands, "encode", _encode, "Embed the videos of a corpus.")
    add_sources(encode, weights=False)
    target = encode.add_mutually_exclusive_group()
    target.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: in the cache folder)")
    target.add_argument("--ship", action="store_true", help="write to assets/, to ship it with the repository")


def _demo(args: argparse.Namespace) -> None:
    from dits.corpora.demo import build_demo, demo_folder

    require(args.workers is None or args.workers >= 1, "--workers must be 1 or more.")
    corpus = build_demo(partial(show_progress, "Preparing the demo clips"), args.workers)
    print(f"The demo corpus is ready: {len(corpus)} clips in {demo_folder()}")


def _encode(args: argparse.Namespace) -> None:
    from dits.corpora.embeddings import cached_path, embed_corpus, save_embeddings, shipped_path
    from dits.encoders.openclip import load_encoder

    check_target(args.out)
    corpus = corpus_from(args)
    encoder = load_encoder(args.encoder)
    path = args.out or (shipped_path if args.ship else cached_path)(corpus, encoder)
    save_embeddings(path, corpus, embed_corpus(corpus, encoder, show_embedding))
    print(f"Embedded {len(corpus)} videos with {encoder.id}: {path}")

"""`demo` and `encode`: the demo corpus, and the embeddings of any."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, add_sources, check_target, named_corpus, show_embedding, show_progress
from dits.common.errors import InputError

if TYPE_CHECKING:
    from dits.cli.arguments import Commands


def add(commands: "Commands") -> None:
    """Adds the commands."""
    demo = add_command(commands, "demo", _demo, "Build the demo corpus in the cache folder, or what is missing of it.")
    demo.add_argument("--workers", type=int, help="processes to build with (default: one a core, up to 8)")
    encode = add_command(commands, "encode", _encode, "Embed the videos of a corpus.")
    add_sources(encode, weights=False)
    target = encode.add_mutually_exclusive_group()
    target.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: in the cache folder)")
    target.add_argument("--ship", action="store_true", help="write to assets/, as what the repository ships")


def _demo(args: argparse.Namespace) -> None:
    from dits.corpora.demo import build_demo, demo_folder

    if args.workers is not None and args.workers < 1:
        raise InputError("--workers must be 1 or more.")
    corpus = build_demo(lambda done, total: show_progress("Preparing the demo clips", done, total), args.workers)
    print(f"The demo corpus is ready: {len(corpus)} clips in {demo_folder()}")


def _encode(args: argparse.Namespace) -> None:
    from dits.corpora.embeddings import cached_path, embed_corpus, save_embeddings, shipped_path
    from dits.encoders.openclip import load_encoder

    check_target(args.out)
    corpus = named_corpus(args)
    encoder = load_encoder(args.encoder)
    path = args.out or (shipped_path if args.ship else cached_path)(corpus, encoder)
    save_embeddings(path, corpus, embed_corpus(corpus, encoder, show_embedding))
    print(f"Embedded {len(corpus)} videos with {encoder.id}: {path}")

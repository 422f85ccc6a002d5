"""`pairs`, `quantize` and `train encoder`: how the bundled encoder is made."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, show_notices, show_progress
from dits.common.flags import add_config_flags, config_from

if TYPE_CHECKING:
    from dits.cli.arguments import Commands


def add(commands: "Commands") -> None:
    """Adds the commands."""
    quantize = add_command(
        commands, "quantize", _quantize, "Write an encoder with its matrices in eight bits: half the size."
    )
    quantize.add_argument("folder", type=Path, help="an encoder in OpenCLIP's folder format")
    quantize.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    pairs = add_command(
        commands, "pairs", _pairs, "Gather image-text pairs from installed packages, for training the encoder."
    )
    pairs.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of shards to write")
    pairs.add_argument("--sources", help="comma-separated names (default: all of them)")
    pairs.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR",
        help="where the Debian packages are: / (default), or a folder they were unpacked into with dpkg -x",
    )  # fmt: skip


def add_training(whats: "Commands") -> None:
    """Adds the encoder to what `train` trains."""
    from dits.bundled_encoder.config import EncoderTrainingConfig

    encoder = whats.add_parser("encoder", help="the bundled encoder", description=EncoderTrainingConfig.__doc__)
    encoder.set_defaults(run_command=_train_encoder)
    encoder.add_argument("--corpus", default="demo", help="whose validation split selects (default demo)")
    encoder.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="shards, from python -m dits pairs")
    encoder.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    encoder.add_argument("--recipe", type=Path, metavar="FILE.toml", help="settings; flags override them")
    encoder.add_argument("--run", type=Path, metavar="DIR", help="keep the state here; resume what is there")
    add_config_flags(encoder, EncoderTrainingConfig)


def _quantize(args: argparse.Namespace) -> None:
    from dits.encoders.quantization import quantize_folder

    size = quantize_folder(args.folder, args.out)
    print(f"Wrote {size / 1e6:.1f} MB to {args.out}: use it as --encoder local-dir:{args.out}")


def _pairs(args: argparse.Namespace) -> None:
    from dits.bundled_encoder.pairs.gathering import prepare_pairs
    from dits.bundled_encoder.pairs.sources import SOURCES

    names = [name.strip() for name in (args.sources or ",".join(SOURCES)).split(",") if name.strip()]
    index = prepare_pairs(args.out, names, args.root, lambda line: print(line, file=sys.stderr, flush=True))
    print(f"Wrote {sum(shard['pairs'] for shard in index['shards'])} pairs to {args.out}")


def _train_encoder(args: argparse.Namespace) -> None:
    from dits.bundled_encoder.config import EncoderTrainingConfig, read_recipe
    from dits.bundled_encoder.training import train_encoder
    from dits.corpora.names import open_corpus

    recipe = read_recipe(args.recipe) if args.recipe else {}
    config = config_from(args, EncoderTrainingConfig, recipe)
    corpus = open_corpus(args.corpus, show_progress, lambda sentence: show_notices([sentence]))
    train_encoder(corpus, args.pairs, args.out, config, lambda line: print(line, flush=True), args.run)
    print(f"Wrote the encoder to {args.out}")

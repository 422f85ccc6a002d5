"""`pairs`, `quantize` and `train encoder`: the commands that make the bundled encoder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import add_command, show_line, show_notices, show_progress, split_names
from dits.common.flags import add_config_flags, config_from

if TYPE_CHECKING:
    from dits.cli.arguments import Commands


def add(commands: "Commands") -> None:
    """Adds the commands."""
    quantize = add_command(commands, "quantize", _quantize, "Quantize an encoder to eight bits, half the size.")
    quantize.add_argument("folder", type=Path, help="encoder in OpenCLIP's folder format")
    quantize.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    pairs = add_command(commands, "pairs", _pairs, "Gather image-text pairs for `train encoder`.")
    pairs.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of shards to write")
    pairs.add_argument("--sources", help="comma-separated names of sources (default: all that are installed or given)")
    pairs.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR",
        help="root of the Debian packages: / (default), or a folder into which `dpkg -x` unpacked them",
    )  # fmt: skip
    pairs.add_argument("--msrvtt", type=Path, metavar="DIR", help="folder of MSR-VTT, for its training videos")
    flickr = pairs.add_mutually_exclusive_group()
    for flag in ("--flickr8k", "--flickr30k"):
        flickr.add_argument(flag, dest="flickr", type=Path, metavar="DIR", help=f"folder of {flag[2:].capitalize()}")


def add_training(commands: "Commands") -> None:
    """Adds the subcommand `encoder` to `train`."""
    from dits.bundled_encoder.config import EncoderTrainingConfig

    encoder = add_command(commands, "encoder", _train_encoder, "Train the bundled encoder on image-text pairs.")
    encoder.add_argument(
        "--corpus", action="append", help="its validation split selects the weights; repeat for several (default: demo)"
    )
    encoder.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="folder of shards from `pairs`")
    encoder.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    encoder.add_argument("--recipe", type=Path, metavar="FILE.toml", help="file of settings; flags override them")
    encoder.add_argument("--run", type=Path, metavar="DIR", help="folder of the run's state, to resume it")
    add_config_flags(encoder, EncoderTrainingConfig)


def _quantize(args: argparse.Namespace) -> None:
    from dits.encoders.quantization import quantize_folder

    size = quantize_folder(args.folder, args.out)
    print(f"Wrote {size / 1e6:.1f} MB to {args.out}: use it as --encoder local-dir:{args.out}")


def _pairs(args: argparse.Namespace) -> None:
    from dits.bundled_encoder.pairs.gathering import prepare_pairs
    from dits.bundled_encoder.pairs.sources import default_sources

    given = {"msrvtt": args.msrvtt, "flickr": args.flickr}
    folders = {name: folder for name, folder in given.items() if folder is not None}
    names = split_names(args.sources) if args.sources else default_sources(folders)
    index = prepare_pairs(args.out, names, args.root, show_line, folders)
    print(f"Wrote {sum(shard['pairs'] for shard in index['shards'])} pairs to {args.out}")


def _train_encoder(args: argparse.Namespace) -> None:
    from dits.bundled_encoder.config import EncoderTrainingConfig, read_recipe
    from dits.bundled_encoder.training import train_encoder
    from dits.corpora.names import open_corpus

    recipe = read_recipe(args.recipe) if args.recipe else {}
    config = config_from(args, EncoderTrainingConfig, recipe)
    names = args.corpus or ["demo"]
    corpora = [open_corpus(name, show_progress, lambda sentence: show_notices([sentence])) for name in names]
    train_encoder(corpora, args.pairs, args.out, config, lambda line: print(line, flush=True), args.run)
    print(f"Wrote the encoder to {args.out}")

"""`train`: pooling and sampler on cached embeddings; with --joint, from video (dits.commands.joint).

`train encoder` is in dits.commands.encoder.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits.commands.common import add_sources, check_target, named_corpus, show_embedding, show_progress
from dits.flags import add_config_flags, config_from
from dits.model import METHODS

if TYPE_CHECKING:
    from dits.commands.common import Commands
    from dits.encoders import Encoder
    from dits.model import ModelConfig
    from dits.training import PairData


_NO_FLAGS = {"pooling": ("dim", "heads"), "network": ("dim",)}
"""Fields that are no flags, by part: the encoder decides the width, and --heads is the network's."""


def add(commands: "Commands") -> None:
    """Adds the command, with a subcommand for everything that can be trained."""
    from dits.commands import encoder, joint
    from dits.model import PARTS
    from dits.training import TrainingConfig

    text = "Train the pooling and the sampler, or the bundled encoder."
    whats = commands.add_parser("train", help=text, description=text).add_subparsers(required=True, metavar="WHAT")
    encoder.add_training(whats)
    for method, entry in METHODS.items():
        how = (
            "the encoder alone, with --joint"
            if method == "mean"
            else "on cached embeddings, or from video with --joint"
        )
        description = f"{entry.title}: {entry.source}; {how}."
        train = whats.add_parser(method, help=description, description=description)
        train.set_defaults(run_command=_train, method=method)
        add_sources(train, weights=False)
        target = train.add_mutually_exclusive_group(required=True)
        target.add_argument("--out", type=Path, metavar="FILE.safetensors", help="file to write; a folder with --joint")
        target.add_argument("--ship", action="store_true", help="write to assets/, as what the repository ships")
        train.add_argument("--pairs", type=Path, metavar="DIR", help="train on these shards too (python -m dits pairs)")
        train.add_argument(
            "--sources", default="left-out,templates,wallpapers", help="sources of the shards (default: %(default)s)"
        )
        train.add_argument("--init", type=Path, metavar="FILE", help="weights to start from, of any method")
        train.add_argument("--run", type=Path, metavar="DIR", help="keep the state here; resume what is there")
        train.add_argument("--half", action="store_true", help="write float16")
        train.add_argument("--json", action="store_true", help="print the best epoch's record as JSON")
        add_config_flags(train, TrainingConfig)
        joint.add_flags(train)
        for part in ("pooling", *entry.parts):
            add_config_flags(train, PARTS[part], skip=_NO_FLAGS.get(part, ()))


def _train(args: argparse.Namespace) -> None:
    from dits.commands import joint

    if args.joint:
        joint.run(args)
    else:
        joint.refuse_flags(args)
        _train_on_embeddings(args)


def _train_on_embeddings(args: argparse.Namespace) -> None:
    from dits.checkpoint import CheckpointHeader, bundled_weights, load_checkpoint, save_checkpoint
    from dits.embeddings import corpus_embeddings
    from dits.encoders import load_encoder
    from dits.files import sha256_of_json
    from dits.training import TrainingConfig, pair_data, train

    check_target(args.out)
    corpus = named_corpus(args)
    encoder = load_encoder(args.encoder)
    embeddings = corpus_embeddings(corpus, encoder, show_embedding)
    config = config_from(args, TrainingConfig)
    model_config = model_config_from(args, encoder.dim)
    data = pair_data(corpus.split("train"), encoder, embeddings)
    described = {"corpus": args.corpus, "split": "train", "selected_on": "validation"}
    if args.pairs:
        data, sources = _with_pairs(data, encoder, args.pairs, args.sources)
        described["pairs"] = sources
    result = train(
        model_config,
        config,
        data,
        pair_data(corpus.split("validation"), encoder, embeddings),
        init=load_checkpoint(args.init, encoder).model if args.init else None,
        run=args.run,
        on_epoch=lambda record: _print_epoch(record, config.epochs),
    )
    captions = sha256_of_json([[clip.id, clip.split, *clip.captions] for clip in corpus])
    header = CheckpointHeader(
        encoder=encoder.id,
        quick_gelu=encoder.quick_gelu,
        dim=encoder.dim,
        config=model_config.as_dict(),
        data={**described, "captions": captions},
        training=asdict(config) | {"init": args.init.name if args.init else None},
        metric=result.best,
    )
    path = args.out or bundled_weights(args.method, encoder.id)
    save_checkpoint(path, result.model, header, encoder.fingerprint(), half=args.half)
    print(json.dumps(result.best) if args.json else f"Wrote the weights of epoch {result.best['epoch']} to {path}")


def model_config_from(args: argparse.Namespace, dim: int) -> "ModelConfig":
    """The model that the flags describe, for embeddings of a width."""
    from dits.model import PARTS, ModelConfig

    fixed: dict[str, dict[str, Any]] = {"pooling": {"dim": dim, "heads": 1}, "network": {"dim": dim}}
    names = ("pooling", *METHODS[args.method].parts)
    return ModelConfig(args.method, **{name: config_from(args, PARTS[name], **fixed.get(name, {})) for name in names})


def _with_pairs(data: "PairData", encoder: "Encoder", folder: Path, names: str) -> tuple["PairData", str]:
    """The data joined with the shards' pairs of some sources, and what to say of them."""
    from dits.encoder_data import load_pairs
    from dits.pair_embeddings import joined, pair_data_of

    sources = tuple(name.strip() for name in names.split(",") if name.strip())
    pairs = load_pairs(folder, sources)
    more = pair_data_of(pairs, encoder, lambda done, total: show_progress("Embedding the pairs", done, total))
    return joined(data, more), f"{len(pairs)} of {', '.join(sources)}"


def _print_epoch(record: dict[str, Any], epochs: int) -> None:
    t2v = record["t2v"]
    print(
        f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}  validation t2v R@1 {t2v['R@1']:.1f} "
        f"R@5 {t2v['R@5']:.1f} MnR {t2v['MnR']:.2f}",
        file=sys.stderr,
        flush=True,
    )

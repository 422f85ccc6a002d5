"""`train`: train a method on cached embeddings. `dits.cli.train_joint` has --joint, `dits.cli.encoder` the encoder."""

import argparse
import json
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits.cli.arguments import (
    add_sources,
    check_target,
    corpus_from,
    model_config_from,
    show_embedding,
    show_line,
    show_progress,
    split_names,
)
from dits.common.errors import require
from dits.common.flags import add_config_flags, config_from
from dits.models.retrieval import METHODS

if TYPE_CHECKING:
    from dits.bundled_encoder.pairs.shards import Pair
    from dits.cli.arguments import Commands
    from dits.training.trainer import TrainingConfig


_SOURCES = "left-out,templates,wallpapers"


def add(commands: "Commands") -> None:
    """Adds the command, with a subcommand for each method and for the bundled encoder."""
    from dits.cli import encoder
    from dits.cli import train_joint as joint
    from dits.models.pooling import PoolingConfig
    from dits.models.retrieval import PARTS
    from dits.training.trainer import TrainingConfig

    text = "Train a method or the bundled encoder."
    trainable = commands.add_parser("train", help=text, description=text).add_subparsers(required=True, metavar="NAME")
    encoder.add_training(trainable)
    for method, entry in METHODS.items():
        modes = {"mean": "only the encoder, with --joint", "shift": "on cached embeddings"}
        mode = modes.get(method, "on cached embeddings, or from video with --joint")
        description = f"{entry.title}: {entry.source}; {mode}."
        train = trainable.add_parser(method, help=description, description=description)
        train.set_defaults(run_command=_train, method=method)
        add_sources(train, weights=False)
        target = train.add_mutually_exclusive_group(required=True)
        target.add_argument("--out", type=Path, metavar="FILE.safetensors", help="file to write; with --joint a folder")
        target.add_argument("--ship", action="store_true", help="write to assets/, to ship it with the repository")
        train.add_argument("--pairs", type=Path, metavar="DIR", help="folder of shards (see `pairs`) to train on too")
        train.add_argument("--sources", help=f"with --pairs: sources to use (default: {_SOURCES})")
        train.add_argument("--init", type=Path, metavar="FILE", help="initial weights, of any method")
        train.add_argument("--run", type=Path, metavar="DIR", help="folder of the run's state, to resume it")
        train.add_argument("--half", action="store_true", help="write float16")
        train.add_argument("--json", action="store_true", help="print the record of the best epoch as JSON")
        add_config_flags(train, TrainingConfig)
        joint.add_flags(train)
        unused = {field.name for field in fields(PoolingConfig)} - set(entry.pooling)  # --heads is the network's
        add_config_flags(train, PoolingConfig, skip=tuple(unused))
        for part in entry.parts:
            add_config_flags(train, PARTS[part], skip=("dim",))  # the encoder sets the dimension


def _train(args: argparse.Namespace) -> None:
    from dits.cli import train_joint as joint

    if args.joint:
        joint.run(args)
    else:
        joint.refuse_flags(args)
        _train_on_embeddings(args)


def _train_on_embeddings(args: argparse.Namespace) -> None:
    from dits.bundled_encoder.data import load_pairs
    from dits.bundled_encoder.pair_embeddings import concatenate, embed_pairs
    from dits.common.files import sha256_of_json
    from dits.corpora.embeddings import corpus_embeddings
    from dits.encoders.openclip import load_encoder
    from dits.models.checkpoint import CheckpointHeader, bundled_weights, load_checkpoint, save_checkpoint
    from dits.models.retrieval import RetrievalModel
    from dits.training.trainer import TrainingConfig, pair_data, require_trainable, train

    check_target(args.out)
    require(args.pairs or not args.sources, "--sources needs --pairs: give a folder of shards, or leave --sources out.")
    config = config_from(args, TrainingConfig)
    encoder = load_encoder(args.encoder)
    model_config = model_config_from(args, encoder.dim)
    require_trainable(RetrievalModel(model_config), config)
    init = load_checkpoint(args.init, encoder).model if args.init else None
    corpus = corpus_from(args)
    training, selection = corpus.split("train"), corpus.split(config.select_on)
    description = {"corpus": args.corpus, "split": "train", "selected_on": config.select_on}
    pairs: list[Pair] = []
    if args.pairs:
        sources = tuple(split_names(args.sources or _SOURCES))
        pairs = load_pairs(args.pairs, sources)
        description["pairs"] = f"{len(pairs)} of {', '.join(sources)}"
    embeddings = corpus_embeddings(corpus, encoder, show_embedding)
    data = pair_data(training, encoder, embeddings)
    if pairs:
        data = concatenate(data, embed_pairs(pairs, encoder, partial(show_progress, "Embedding the pairs")))
    validation = pair_data(selection, encoder, embeddings)
    on_epoch = partial(_show_epoch, config=config)
    result = train(model_config, config, data, validation, init=init, run=args.run, on_epoch=on_epoch)
    captions = sha256_of_json([[clip.id, clip.split, *clip.captions] for clip in corpus])
    header = CheckpointHeader(
        encoder=encoder.id,
        quick_gelu=encoder.quick_gelu,
        dim=encoder.dim,
        config=model_config.as_dict(),
        data={**description, "captions": captions},
        training=asdict(config) | {"init": args.init.name if args.init else None},
        metric=result.best,
    )
    path = args.out or bundled_weights(args.method, encoder.id)
    save_checkpoint(path, result.model, header, encoder.fingerprint(), half=args.half)
    print(json.dumps(result.best) if args.json else f"Wrote the weights of epoch {result.best['epoch']} to {path}")


def _show_epoch(record: dict[str, Any], config: "TrainingConfig") -> None:
    t2v = record["t2v"]
    show_line(
        f"epoch {record['epoch']}/{config.epochs}  loss {record['loss']:.4f}  {config.select_on} t2v R@1 "
        f"{t2v['R@1']:.1f} R@5 {t2v['R@5']:.1f} MnR {t2v['MnR']:.2f}"
    )

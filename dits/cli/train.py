"""`train`: train a method on cached embeddings. `dits.cli.train_joint` has --joint, `dits.cli.encoder` the encoder."""

import argparse
import json
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits.cli.arguments import (
    add_sources,
    check_target,
    corpus_from,
    model_config_from,
    named_corpus,
    show_embedding,
    show_line,
)
from dits.cli.training_data import DEFAULT_SOURCES
from dits.common.errors import require
from dits.common.flags import add_config_flags, config_from
from dits.models.retrieval import METHODS

if TYPE_CHECKING:
    from dits.cli.arguments import Commands
    from dits.encoders.openclip import OpenClipEncoder
    from dits.models.projections import Projections
    from dits.training.trainer import TrainingConfig


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
        modes = {"mean": "only the encoder, with --tune-projections or --joint", "shift": "on cached embeddings"}
        mode = modes.get(method, "on cached embeddings, or from video with --joint")
        description = f"{entry.title}: {entry.source}; {mode}."
        train = trainable.add_parser(method, help=description, description=description)
        train.set_defaults(run_command=_train, method=method)
        add_sources(train, weights=False)
        target = train.add_mutually_exclusive_group(required=True)
        target.add_argument("--out", type=Path, metavar="FILE.safetensors", help="file to write; with --joint a folder")
        target.add_argument("--ship", action="store_true", help="write to assets/, to ship it with the repository")
        train.add_argument("--pairs", type=Path, metavar="DIR", help="folder of shards (see `pairs`) to train on too")
        train.add_argument("--sources", help=f"with --pairs: sources to use (default: {DEFAULT_SOURCES})")
        train.add_argument(
            "--cross-fit", type=Path, action="append", metavar="DIR",
            help="with --pairs: train on these alone, embedded by encoders that have not seen them; repeat for the "
            "encoder of each fold (train encoder --fold)",
        )  # fmt: skip
        train.add_argument(
            "--select-also-on", action="append", metavar="CORPUS", help="a further corpus to select the epoch on"
        )
        train.add_argument("--init", type=Path, metavar="FILE", help="initial weights, of any method")
        train.add_argument("--run", type=Path, metavar="DIR", help="folder of the run's state, to resume it")
        train.add_argument(
            "--tune-projections", type=Path, metavar="DIR",
            help="tune the encoder's projections too, and write the tuned encoder to this folder",
        )  # fmt: skip
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

    unused = {"--projection-rate": args.projection_rate, "--feature-dropout": args.feature_dropout}
    given = [flag for flag, value in unused.items() if value is not None and not args.tune_projections]
    require(not given, f"{' and '.join(given)}: only tuned projections use this, add --tune-projections.")
    if args.joint:
        joint.run(args)
    else:
        joint.refuse_flags(args)
        _train_on_embeddings(args)


def _train_on_embeddings(args: argparse.Namespace) -> None:
    from dits.cli.training_data import training_data
    from dits.common.files import make_folder, sha256_of_json
    from dits.corpora.embeddings import corpus_embeddings
    from dits.encoders.folder import check_writable
    from dits.encoders.openclip import load_encoder
    from dits.models.checkpoint import CheckpointHeader, bundled_weights, load_checkpoint, save_checkpoint
    from dits.models.projections import Projections, without_projections
    from dits.models.retrieval import MAX_TEMPERATURE, RetrievalModel
    from dits.training.devices import training_device
    from dits.training.trainer import TrainingConfig, pair_data, require_trainable, train

    check_target(args.out)
    for flag, value in (("--sources", args.sources), ("--cross-fit", args.cross_fit)):
        require(args.pairs or not value, f"{flag} needs --pairs: give a folder of shards, or leave {flag} out.")
    require(
        not (args.cross_fit and args.tune_projections),
        "--cross-fit trains on embeddings by several encoders, --tune-projections on features of one: leave one out.",
    )
    config = config_from(args, TrainingConfig)
    device = str(training_device(args.device or "auto"))
    encoder = load_encoder(args.encoder, device)
    if not config.temperature:
        config = replace(config, temperature=min(encoder.temperature, MAX_TEMPERATURE))
    model_config = model_config_from(args, encoder.dim)
    projections, embedder = None, encoder
    if args.tune_projections:
        projections, embedder = Projections.of(encoder), without_projections(encoder)
        check_writable(encoder)
        make_folder(args.tune_projections)
    require_trainable(RetrievalModel(model_config), config, projections is not None)
    init = load_checkpoint(args.init, encoder).model if args.init else None
    corpus = corpus_from(args)
    corpora = {args.corpus: corpus} | {name: named_corpus(name, args.strict) for name in args.select_also_on or []}
    selected_on = config.select_on + (f" of {', '.join(corpora)}" if len(corpora) > 1 else "")
    description = {"corpus": args.corpus, "split": "train", "selected_on": selected_on}
    selections = [other.split(config.select_on) for other in corpora.values()]  # a missing one is said before the work
    data, used = training_data(args, corpus, encoder, embedder)
    validation = []
    for other, selection in zip(corpora.values(), selections, strict=True):
        embeddings = corpus_embeddings(other, embedder, show_embedding, ids=selection.ids)
        validation.append(pair_data(selection, embedder, embeddings))
    result = train(
        model_config, config, data, validation, init=init, run=args.run, on_epoch=partial(_show_epoch, config=config),
        projections=projections, device=device,
    )  # fmt: skip
    origin = {"init": args.init.name if args.init else None}
    if result.projections is not None:
        origin["start"] = encoder.id
        encoder = _write_tuned(encoder, result.projections, args.tune_projections, args.half)
    captions = sha256_of_json([[clip.id, clip.split, *clip.captions] for clip in corpus])
    header = CheckpointHeader(
        encoder=encoder.id,
        quick_gelu=encoder.quick_gelu,
        dim=encoder.dim,
        config=model_config.as_dict(),
        data={**description, **used, "captions": captions},
        training=asdict(config) | origin,
        metric=result.best,
    )
    path = args.out or bundled_weights(args.method, encoder.id)
    save_checkpoint(path, result.model, header, encoder.fingerprint(), half=args.half)
    message = f"Wrote the weights of epoch {result.best['epoch']} to {path}"
    if args.tune_projections:
        message += f", and their encoder to a folder: use it with --encoder local-dir:{args.tune_projections}"
    print(json.dumps(result.best) if args.json else message)


def _write_tuned(encoder: "OpenClipEncoder", projections: "Projections", folder: Path, half: bool) -> "OpenClipEncoder":
    """Writes the encoder with other projections to a folder, and loads it from there."""
    from dits.encoders.folder import write_encoder
    from dits.encoders.openclip import load_encoder
    from dits.encoders.towers import write_model

    projections.write_to(encoder)
    write_encoder(encoder, folder)
    if half:
        write_model(encoder.module, folder)
    return load_encoder(f"local-dir:{folder}", str(encoder.device))


def _show_epoch(record: dict[str, Any], config: "TrainingConfig") -> None:
    t2v = record["t2v"]
    show_line(
        f"epoch {record['epoch']}/{config.epochs}  loss {record['loss']:.4f}  temperature {record['temperature']:.1f}  "
        f"{config.select_on} t2v R@1 {t2v['R@1']:.1f} R@5 {t2v['R@5']:.1f} MnR {t2v['MnR']:.2f}"
    )

"""`train METHOD --joint`: train encoder and method together, from video, in one process or under torchrun."""

import argparse
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import corpus_from, model_config_from, show_line
from dits.common.errors import DitsError, VideoError, require
from dits.common.flags import add_config_flags, config_from

if TYPE_CHECKING:
    from dits.training.joint.distributed import World


def add_flags(train: argparse.ArgumentParser) -> None:
    """Adds --joint and the flags that only joint training has."""
    from dits.training.joint.config import JointTrainingConfig

    train.add_argument("--joint", action="store_true", help="train the encoder too, from video; --out is then a folder")
    train.add_argument("--log-dir", type=Path, metavar="DIR", help="with --joint: folder of logs for TensorBoard")
    train.add_argument("--device", help="auto (default: the GPU if there is one), cpu or cuda")
    add_config_flags(train, JointTrainingConfig)


def refuse_flags(args: argparse.Namespace) -> None:
    """Checks, without --joint, that no flag of joint training is given.

    Raises:
        InputError: such a flag is given.
    """
    from dits.training.joint.config import JointTrainingConfig
    from dits.training.trainer import TrainingConfig

    shared = {field.name for field in fields(TrainingConfig)}
    names = [field.name for field in fields(JointTrainingConfig) if field.name not in shared] + ["log_dir"]
    given = ["--" + name.replace("_", "-") for name in names if getattr(args, name, None) is not None]
    require(not given, f"{', '.join(given)}: only joint training uses this, add --joint.")


def run(args: argparse.Namespace) -> None:
    """Trains, and writes OUT/encoder and OUT/<method>.safetensors. The run's state is in OUT/run, or in --run."""
    from dits.training.joint.distributed import joined_world

    for name in ("ship", "pairs", "sources", "cross_fit", "select_also_on", "half", "tune_projections"):
        flag = "--" + name.replace("_", "-")
        require(not getattr(args, name), f"{flag} is for training on cached embeddings: leave it out with --joint.")
    require(args.method != "shift", "Mean shift is computed, not trained: leave --joint out.")
    is_file = args.out.suffix == ".safetensors" or args.out.is_file()
    require(not is_file, f"With --joint, --out is a folder for encoder and weights: name a folder, not {args.out}.")
    if args.log_dir:
        from dits.training.joint.run_log import check_tensorboard

        check_tensorboard()
    with joined_world(args.device or "auto") as world:
        try:
            _train(args, world)
        except VideoError:  # only this process may have it
            raise
        except DitsError:
            if world.primary:
                raise
            sys.exit(2)  # every process has the same error


def _train(args: argparse.Namespace, world: "World") -> None:
    from dits.common.files import make_folder
    from dits.corpora.names import open_corpus
    from dits.encoders.openclip import load_encoder
    from dits.models.checkpoint import load_checkpoint
    from dits.training.joint.config import JointTrainingConfig
    from dits.training.joint.data import joint_data
    from dits.training.joint.trainer import ENCODER_FOLDER, train_jointly, write_joint

    config = config_from(args, JointTrainingConfig)
    make_folder(args.out)
    corpus = corpus_from(args) if world.primary else open_corpus(args.corpus, strict=args.strict)
    encoder = load_encoder(args.encoder, device=world.device)
    model_config = model_config_from(args, encoder.dim)
    init = load_checkpoint(args.init, encoder).model if args.init else None
    data = joint_data(corpus, config, encoder, world)
    if data.skipped and world.primary:
        show_line(f"Left out {len(data.skipped)} videos that cannot be decoded.")
        for name, reason in data.skipped.items():
            show_line(f"{name}: {reason}")
    run_folder = args.run or args.out / "run"
    result = train_jointly(
        model_config, config, encoder, data, run_folder, world=world, init=init, log_dir=args.log_dir, report=show_line
    )
    if not world.primary:
        return
    description = {
        "corpus": args.corpus,
        "split": "train",
        "selected_on": config.select_on,
        "skipped": len(data.skipped),
        "captions": data.digest,
    }
    training = asdict(config) | {
        "joint": True,
        "start": encoder.id,
        "init": args.init.name if args.init else None,
        "processes": world.size,
    }
    write_joint(args.out, encoder, result, description, training)
    message = (
        f"Wrote the weights of step {result.best['step']}: use them with "
        f"--encoder local-dir:{args.out / ENCODER_FOLDER} --weights {args.out}"
    )
    print(json.dumps(result.best) if args.json else message)

"""`ablate`: the paper's ablations and our controls over several seeds, with a report."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dits.cli.arguments import (
    add_command,
    add_sources,
    corpus_from,
    show_embedding,
    show_line,
    show_notices,
    split_names,
)
from dits.common.errors import require
from dits.common.flags import add_config_flags, config_from, whole_numbers

if TYPE_CHECKING:
    from dits.cli.arguments import Commands


def add(commands: "Commands") -> None:
    """Adds the command."""
    from dits.ablations.tables import TABLES
    from dits.models.network import AlignmentConfig
    from dits.training.trainer import TrainingConfig

    ablate = add_command(commands, "ablate", _ablate, "Train and evaluate the paper's ablations over several seeds.")
    add_sources(ablate, weights=False)
    ablate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results and report")
    ablate.add_argument("--tables", default=",".join(TABLES), help="comma-separated (default: %(default)s)")
    ablate.add_argument("--seeds", default="1,2,3,4,24", help="comma-separated (default: %(default)s)")
    ablate.add_argument("--split", default="test", help="split of the final evaluation (default: test)")
    add_config_flags(ablate, TrainingConfig, skip=("seed", "objective", "projection_rate", "feature_dropout"))
    add_config_flags(ablate, AlignmentConfig, skip=("dim",))


def _ablate(args: argparse.Namespace) -> None:
    from dits.ablations.grid import embedded_splits, run_grid
    from dits.ablations.report import About, write_report
    from dits.ablations.tables import TABLES
    from dits.common.files import make_folder
    from dits.corpora.embeddings import corpus_embeddings
    from dits.encoders.openclip import load_encoder
    from dits.models.network import AlignmentConfig
    from dits.models.pooling import PoolingConfig
    from dits.models.retrieval import ModelConfig
    from dits.training.trainer import TrainingConfig

    names = split_names(args.tables)
    for name in names:
        require(name in TABLES, f"There is no table '{name}': choose from {', '.join(TABLES)}.")
    tables = [TABLES[name] for name in names]
    seeds = whole_numbers(args.seeds, "seeds")
    training = config_from(args, TrainingConfig)
    make_folder(args.out)
    corpus = corpus_from(args)
    parts = [corpus.split(name) for name in ("train", training.select_on, args.split)]
    encoder = load_encoder(args.encoder)
    notices: list[str] = []
    ids = list(dict.fromkeys(video for part in parts for video in part.ids))
    embeddings = corpus_embeddings(corpus, encoder, show_embedding, notices.append, ids)
    show_notices(notices)
    splits = embedded_splits(parts, corpus, encoder, embeddings)
    network = config_from(args, AlignmentConfig, dim=encoder.dim)
    base = ModelConfig(pooling=PoolingConfig(dim=encoder.dim), network=network)
    results = run_grid(tables, splits, base, training, seeds, args.out, show_line)
    about = About(args.corpus, args.split, encoder.id, shlex.join(["python", "-m", "dits", *sys.argv[1:]]))
    print(f"Wrote {write_report(args.out, tables, results, splits, training, seeds, about)}")

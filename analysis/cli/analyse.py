"""`python -m dits analyse`: a report on the gap and the trajectories of a corpus, or of a file of embeddings."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.flow import VIDEO_SIDES
from dits.cli.arguments import add_command, add_sources, corpus_from, show_embedding, show_notices
from dits.common.errors import InputError, require
from dits.common.files import make_folder
from dits.models.retrieval import METHODS

if TYPE_CHECKING:
    from analysis.flow import Flow
    from dits.cli.arguments import Commands
    from dits.encoders.openclip import OpenClipEncoder
    from dits.models.retrieval import RetrievalModel

MAX_STEPS = 200
"""Maximum T'. The paper's tables end at 40, and every step is measured."""


def add(commands: "Commands") -> None:
    """Add the command."""
    analyse = add_command(
        commands, "analyse", _analyse, "Measure the modality gap and what each step does to it; write a report."
    )
    add_sources(analyse)
    analyse.add_argument("--split", default="test", help="train, validation, test (default) or all")
    analyse.add_argument(
        "--method", default="dits", help="a method, or the name of other weights, such as dits-l2 (default: dits)"
    )
    analyse.add_argument(
        "--features", type=Path, metavar="FILE",
        help="embeddings of any model instead of a corpus: safetensors or npz with text (N, d), video (V, d), and "
        "optionally pairs (each text's video) and text_steps (S, N, d)",
    )  # fmt: skip
    analyse.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    analyse.add_argument(
        "--video-side", default="mean", choices=VIDEO_SIDES,
        help="the video vector of the gap measures: mean of the frames (default), or frames pooled by the own text",
    )  # fmt: skip
    analyse.add_argument("--steps", type=int, help="number of steps T' of DITS (default: as trained)")
    analyse.add_argument("--noise", type=float, help="noise scale of DITS at inference (default: as trained)")
    analyse.add_argument("--noise-seeds", type=int, default=1, metavar="N", help="average over N seeds (default 1)")
    analyse.add_argument(
        "--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s; 0: none)"
    )
    analyse.add_argument("--paths", type=int, default=24, help="number of trajectories on maps (default %(default)s)")
    analyse.add_argument("--json", action="store_true", help="also print the report as JSON")


def _analyse(args: argparse.Namespace) -> None:
    from analysis.measures.analysis import ReportConfig, analyse
    from analysis.report.files import write_report

    config = ReportConfig(resamples=args.resamples)
    require(args.noise_seeds >= 1, f"--noise-seeds must be at least 1, not {args.noise_seeds}.")
    require(args.paths >= 0, f"--paths cannot be negative: {args.paths}.")
    require(args.steps is None or args.steps <= MAX_STEPS, f"--steps is at most {MAX_STEPS} here, not {args.steps}.")
    make_folder(args.out)
    flows = _flows_of_file(args) if args.features else _flows_of_corpus(args)
    report = write_report(args.out, analyse(flows, config), args.paths)
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    print(f"dits: wrote {args.out / 'report.html'}", file=sys.stderr)


def _flows_of_file(args: argparse.Namespace) -> list["Flow"]:
    from analysis.features import read_features

    unused = {
        "--steps": args.steps is not None, "--noise": args.noise is not None, "--weights": args.weights is not None,
        "--noise-seeds": args.noise_seeds > 1, "--video-side": args.video_side != "mean",
        "--corpus": args.corpus != "demo", "--encoder": args.encoder != "bundled", "--split": args.split != "test",
        "--method": args.method != "dits", "--strict": args.strict,
    }  # fmt: skip
    flags = [flag for flag, is_given in unused.items() if is_given]
    if flags:
        raise InputError(f"--features cannot be combined with {', '.join(flags)}: remove one or the other.")
    return [read_features(args.features)]


def _flows_of_corpus(args: argparse.Namespace) -> list["Flow"]:
    from analysis.flow import flow_of, with_sampling
    from dits.corpora.embeddings import corpus_embeddings
    from dits.encoders.openclip import load_encoder
    from dits.evaluation.metrics import match_queries

    corpus = corpus_from(args)
    gallery = corpus.split(args.split)
    encoder = load_encoder(args.encoder)
    model = with_sampling(_model(args, encoder), args.steps, args.noise)
    if args.noise_seeds > 1 and not model.alignment.is_stochastic:
        raise InputError("This method draws no noise, so all seeds would give the same result: remove --noise-seeds.")
    notices: list[str] = []
    embeddings = corpus_embeddings(corpus, encoder, show_embedding, notices.append, gallery.ids)
    show_notices(notices)
    seeds = [None] if args.noise_seeds == 1 else list(range(args.noise_seeds))
    matched = match_queries(gallery.queries(), gallery.ids)
    captions = tuple(query.caption for query in matched.queries)
    texts = encoder.encode_text(list(captions)).cpu()
    return [
        flow_of(
            with_sampling(model, seed=seed),
            texts,
            embeddings.frames,
            matched.targets,
            name=corpus.name,
            split=args.split,
            method=args.method,
            captions=captions,
            video_ids=tuple(gallery.ids),
            video_side=args.video_side,
        )
        for seed in seeds
    ]


def _model(args: argparse.Namespace, encoder: "OpenClipEncoder") -> "RetrievalModel":
    """The model of a method, or of other weights in its folder: the name NAME means NAME.safetensors."""
    from dits.models.checkpoint import find_weights, load_checkpoint
    from dits.models.retrieval import ModelConfig, RetrievalModel
    from dits.search.methods import weights_path

    name: str = args.method
    if name in METHODS:
        path = weights_path(name, encoder.id, args.weights)
        return load_checkpoint(path, encoder, name).model if path else RetrievalModel(ModelConfig(name)).eval()
    path = find_weights(name, encoder.id, args.weights)
    require(
        path.name == f"{name}.safetensors" and path.is_file(),
        f"There is no method '{name}', and no weights with this name in {path.parent}: choose from "
        f"{', '.join(METHODS)}.",
    )
    return load_checkpoint(path, encoder).model

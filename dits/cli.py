"""The command line: build the demo corpus, search, evaluate, train, embed."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits.errors import DitsError, InputError
from dits.flags import add_config_flags, config_from
from dits.model import METHODS

if TYPE_CHECKING:
    from dits.encoders import Encoder
    from dits.training import PairData


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 2 after one sentence on what is wrong, or 130 when interrupted."""
    args = _parser().parse_args(arguments)
    try:
        args.run_command(args)
        sys.stdout.flush()
        return 0
    except DitsError as error:
        print(f"dits: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dits: interrupted. Nothing is half-written; run the command again.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dits", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run_command=run)
        return added

    demo = command("demo", _demo, "Build the demo corpus in the cache folder, or what is missing of it.")
    demo.add_argument("--workers", type=int, help="processes to build with (default: one a core, up to 8)")

    search = command("search", _search, "Rank the videos of a corpus for a sentence.")
    search.add_argument("text")
    _add_sources(search)
    search.add_argument("--method", choices=METHODS, default="dits")
    search.add_argument("--top", type=int, default=5, help="how many results (default 5)")
    search.add_argument("--json", action="store_true", help="print JSON")

    evaluate = command("evaluate", _evaluate, "Measure retrieval, text to video and video to text.")
    _add_sources(evaluate, weights=False)
    evaluate.add_argument("--split", default="test", help="train, validation, test (default) or all")
    evaluate.add_argument("--queries", type=Path, metavar="FILE.csv", help="columns video_id, caption")
    evaluate.add_argument("--method", default=",".join(METHODS), help="comma-separated (default: all)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.add_argument(
        "--weights", type=Path, metavar="DIR", action="append", help="as for search; several: mean and spread over them"
    )

    encode = command("encode", _encode, "Embed the videos of a corpus.")
    _add_sources(encode, weights=False)
    target = encode.add_mutually_exclusive_group()
    target.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: in the cache folder)")
    target.add_argument("--ship", action="store_true", help="write to assets/, as what the repository ships")
    quantize = command("quantize", _quantize, "Write an encoder with its matrices in eight bits: half the size.")
    quantize.add_argument("folder", type=Path, help="an encoder in OpenCLIP's folder format")
    quantize.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    pairs = command("pairs", _pairs, "Gather image-text pairs from installed packages, for training the encoder.")
    pairs.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of shards to write")
    pairs.add_argument("--sources", help="comma-separated names (default: all of them)")
    pairs.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR",
        help="where the Debian packages are: / (default), or a folder they were unpacked into with dpkg -x",
    )  # fmt: skip
    _add_train(commands.add_parser("train", help="Train the pooling and the sampler, or the bundled encoder."))
    return parser


def _add_sources(parser: argparse.ArgumentParser, weights: bool = True) -> None:
    parser.add_argument("--corpus", default="demo", help="demo, or a folder with captions.csv (default demo)")
    parser.add_argument("--encoder", default="bundled", help="bundled, or an OpenCLIP model: ViT-B-32/openai")
    if weights:
        parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with xpool and dits.safetensors")


def _add_train(parser: argparse.ArgumentParser) -> None:
    from dits.alignment import AlignmentConfig, SamplerConfig
    from dits.encoder_config import EncoderTrainingConfig
    from dits.pooling import PoolingConfig
    from dits.training import TrainingConfig

    whats = parser.add_subparsers(required=True, metavar="WHAT")
    encoder = whats.add_parser("encoder", help="the bundled encoder", description=EncoderTrainingConfig.__doc__)
    encoder.set_defaults(run_command=_train_encoder)
    encoder.add_argument("--corpus", default="demo", help="whose validation split selects (default demo)")
    encoder.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="shards, from python -m dits pairs")
    encoder.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    encoder.add_argument("--recipe", type=Path, metavar="FILE.toml", help="settings; flags override them")
    encoder.add_argument("--run", type=Path, metavar="DIR", help="keep the state here; resume what is there")
    add_config_flags(encoder, EncoderTrainingConfig)
    for method in ("xpool", "dits"):
        train = whats.add_parser(method, help=f"{method} on cached embeddings, the encoder frozen")
        train.set_defaults(run_command=_train_method, method=method)
        _add_sources(train, weights=False)
        target = train.add_mutually_exclusive_group(required=True)
        target.add_argument("--out", type=Path, metavar="FILE.safetensors", help="file to write")
        target.add_argument("--ship", action="store_true", help="write to assets/, as what the repository ships")
        train.add_argument("--pairs", type=Path, metavar="DIR", help="train on these shards too (python -m dits pairs)")
        train.add_argument(
            "--sources", default="left-out,templates,wallpapers", help="sources of the shards (default: %(default)s)"
        )
        train.add_argument("--init", type=Path, metavar="FILE", help="weights to start from, of xpool or dits")
        train.add_argument("--run", type=Path, metavar="DIR", help="keep the state here; resume what is there")
        train.add_argument("--half", action="store_true", help="write float16")
        train.add_argument("--json", action="store_true", help="print the best epoch's record as JSON")
        add_config_flags(train, TrainingConfig)
        add_config_flags(train, PoolingConfig, skip=("dim", "heads"))
        if method == "dits":
            add_config_flags(train, SamplerConfig)
            add_config_flags(train, AlignmentConfig, skip=("dim", "dropout"))


def _demo(args: argparse.Namespace) -> None:
    from dits.demo import build_demo, demo_folder

    if args.workers is not None and args.workers < 1:
        raise InputError("--workers must be 1 or more.")
    corpus = build_demo(lambda done, total: _progress("Preparing the demo clips", done, total), args.workers)
    print(f"The demo corpus is ready: {len(corpus)} clips in {demo_folder()}")


def _search(args: argparse.Namespace) -> None:
    from dits.search import load_engine

    engine = load_engine(args.corpus, args.encoder, (args.method,), args.weights, _progress)
    _print_notices(engine.notices)
    result = engine.search(args.text, args.method, args.top)
    if args.json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
        return
    _print_notices([result.notice] if result.notice else [])
    for hit in result.hits:
        print(f"{hit.rank:>3}  {hit.score:.3f}  {hit.deviations:+.1f} sd  {hit.clip.id}  at {hit.best_moment:.1f} s")
        print(f"     {hit.clip.captions[0]}")


def _evaluate(args: argparse.Namespace) -> None:
    from dits.corpus import read_queries
    from dits.embeddings import corpus_embeddings
    from dits.encoders import load_encoder
    from dits.evaluation import evaluate_scores, match_queries, mean_and_spread
    from dits.search import load_method, open_corpus

    methods = _methods(args.method)
    corpus = open_corpus(args.corpus, _progress)
    gallery = corpus.split(args.split)
    queries = read_queries(args.queries) if args.queries else gallery.queries()
    matched = match_queries(queries, gallery.ids)
    encoder = load_encoder(args.encoder)
    notices: list[str] = []
    embeddings = corpus_embeddings(corpus, encoder, _embedding_progress, notices.append).select(gallery.ids)
    _print_notices(notices)
    texts = encoder.encode_text([query.caption for query in matched.queries])
    runs = []
    for weights in args.weights or [None]:
        loaded = {name: load_method(name, encoder, embeddings.frames, weights) for name in methods}
        scores = {name: method.gallery.scores(texts) for name, method in loaded.items()}
        runs.append({name: evaluate_scores(values, matched.targets) for name, values in scores.items()})
    results, spread = mean_and_spread(runs)
    report = {
        "corpus": args.corpus,
        "split": args.split,
        "encoder": encoder.id,
        "videos": len(gallery),
        "queries": len(matched.queries),
        "skipped": matched.skipped,
        "methods": results,
    }
    if len(runs) > 1:
        report |= {"runs": len(runs), "spread": spread}
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(_table(report))


def _encode(args: argparse.Namespace) -> None:
    from dits.embeddings import cached_path, embed_corpus, save_embeddings, shipped_path
    from dits.encoders import load_encoder
    from dits.search import open_corpus

    _check_target(args.out)
    corpus = open_corpus(args.corpus, _progress)
    encoder = load_encoder(args.encoder)
    path = args.out or (shipped_path if args.ship else cached_path)(corpus, encoder)
    save_embeddings(path, corpus, embed_corpus(corpus, encoder, _embedding_progress))
    print(f"Embedded {len(corpus)} videos with {encoder.id}: {path}")


def _quantize(args: argparse.Namespace) -> None:
    from dits.quantization import quantize_folder

    size = quantize_folder(args.folder, args.out)
    print(f"Wrote {size / 1e6:.1f} MB to {args.out}: use it as --encoder local-dir:{args.out}")


def _pairs(args: argparse.Namespace) -> None:
    from dits.pairs.prepare import prepare_pairs
    from dits.pairs.sources import SOURCES

    names = [name.strip() for name in (args.sources or ",".join(SOURCES)).split(",") if name.strip()]
    index = prepare_pairs(args.out, names, args.root, lambda line: print(line, file=sys.stderr, flush=True))
    print(f"Wrote {sum(shard['pairs'] for shard in index['shards'])} pairs to {args.out}")


def _train_encoder(args: argparse.Namespace) -> None:
    from dits.encoder_config import EncoderTrainingConfig, read_recipe
    from dits.encoder_training import train_encoder
    from dits.search import open_corpus

    recipe = read_recipe(args.recipe) if args.recipe else {}
    config = config_from(args, EncoderTrainingConfig, recipe)
    corpus = open_corpus(args.corpus, _progress)
    train_encoder(corpus, args.pairs, args.out, config, lambda line: print(line, flush=True), args.run)
    print(f"Wrote the encoder to {args.out}")


def _train_method(args: argparse.Namespace) -> None:
    from dits.alignment import AlignmentConfig, SamplerConfig
    from dits.checkpoint import CheckpointHeader, bundled_weights, load_checkpoint, save_checkpoint
    from dits.embeddings import corpus_embeddings
    from dits.encoders import load_encoder
    from dits.files import sha256_of_json
    from dits.model import ModelConfig
    from dits.pooling import PoolingConfig
    from dits.search import open_corpus
    from dits.training import TrainingConfig, pair_data, train

    _check_target(args.out)
    corpus = open_corpus(args.corpus, _progress)
    encoder = load_encoder(args.encoder)
    embeddings = corpus_embeddings(corpus, encoder, _embedding_progress)
    config = config_from(args, TrainingConfig)
    model_config = ModelConfig(
        method=args.method,
        pooling=config_from(args, PoolingConfig, dim=encoder.dim, heads=1),
        sampler=config_from(args, SamplerConfig),
        network=config_from(args, AlignmentConfig, dim=encoder.dim, dropout=0.0),
    )
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


def _with_pairs(data: "PairData", encoder: "Encoder", folder: Path, names: str) -> tuple["PairData", str]:
    """The data joined with the shards' pairs of some sources, and what to say of them."""
    from dits.encoder_data import load_pairs
    from dits.pair_embeddings import joined, pair_data_of

    sources = tuple(name.strip() for name in names.split(",") if name.strip())
    pairs = load_pairs(folder, sources)
    more = pair_data_of(pairs, encoder, lambda done, total: _progress("Embedding the pairs", done, total))
    return joined(data, more), f"{len(pairs)} of {', '.join(sources)}"


def _check_target(path: Path | None) -> None:
    """Says before the work, not after it, that its result cannot be written."""
    from dits.files import make_folder

    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file to write.")
    make_folder(path.parent)


def _methods(names: str) -> list[str]:
    methods = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise InputError(f"There is no method '{', '.join(unknown)}': choose from {', '.join(METHODS)}.")
    return methods


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['corpus']}, split {report['split']}, encoder {report['encoder']}: {report['videos']} videos, "
        f"{report['queries']} queries, {report['skipped']} skipped",
        "",
        "| method | direction | R@1 | R@5 | R@10 | MdR | MnR |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for method, directions in report["methods"].items():
        for direction, metrics in directions.items():
            spread = report.get("spread", {}).get(method, {}).get(direction, {})
            cells = [f"{v:.1f}" + (f" ± {spread[k]:.1f}" if spread else "") for k, v in metrics.items()]
            lines.append(f"| {method} | {direction} | " + " | ".join(cells) + " |")
    if "runs" in report:
        lines.append(f"\nMean and standard deviation over {report['runs']} sets of weights.")
    return "\n".join(lines)


def _print_epoch(record: dict[str, Any], epochs: int) -> None:
    t2v = record["t2v"]
    print(
        f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}  validation t2v R@1 {t2v['R@1']:.1f} "
        f"R@5 {t2v['R@5']:.1f} MnR {t2v['MnR']:.2f}",
        file=sys.stderr,
        flush=True,
    )


def _print_notices(notices: Sequence[str]) -> None:
    for notice in notices:
        print(f"dits: {notice}", file=sys.stderr)


def _embedding_progress(done: int, total: int) -> None:
    _progress("Embedding the clips", done, total)


def _progress(what: str, done: int, total: int) -> None:
    """A line on a terminal that is drawn over; elsewhere a line every tenth."""
    if total <= 1:
        return
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)

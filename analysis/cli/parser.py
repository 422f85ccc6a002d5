"""The analysis command line: measures of an encoder, its sources of pairs, and methods compared on a corpus."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis.cli import comparison
from dits.common.errors import DitsError
from dits.common.terminal import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, or 2 after an error message, or 130 after an interrupt."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
        return 0
    except DitsError as error:
        print(f"analysis: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("analysis: interrupted. Nothing is half-written; run the command again.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    encoder = commands.add_parser("encoder", help="measure an encoder on a corpus: retrieval, zero-shot, gap")
    encoder.add_argument(
        "--encoder", action="append", metavar="NAME",
        help="as for search (default: bundled); repeat it for mean and standard deviation",
    )  # fmt: skip
    encoder.add_argument("--corpus", default="demo", help="demo, or a folder with captions.csv (default demo)")
    encoder.add_argument("--pairs", type=Path, metavar="DIR", help="folder of shards with stamps (zero-shot test)")
    encoder.add_argument("--json", action="store_true", help="print JSON")
    encoder.set_defaults(run=_encoder)
    sources = commands.add_parser("sources", help="measure what each source of pairs adds to the bundled encoder")
    sources.add_argument("--corpus", default="demo", help="the corpus with the validation split (default demo)")
    sources.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="folder from `python -m dits pairs`")
    sources.add_argument("--recipe", type=Path, required=True, metavar="FILE.toml", help="the training recipe")
    sources.add_argument("--seeds", default="1,2,3", help="comma-separated (default: %(default)s)")
    sources.set_defaults(run=_sources)
    comparison.add(commands)
    return parser


def _encoder(args: argparse.Namespace) -> None:
    from analysis.encoder_quality.report import SPLITS, encoder_report, spread
    from dits.bundled_encoder.pairs.shards import read_shards
    from dits.corpora.embeddings import corpus_embeddings
    from dits.corpora.names import open_corpus
    from dits.encoders.openclip import load_encoder

    corpus = open_corpus(args.corpus, notice=lambda sentence: print(f"analysis: {sentence}", file=sys.stderr))
    stamps = [pair for pair in read_shards(args.pairs) if pair.source == "stamps"] if args.pairs else None
    for split in SPLITS:
        corpus.split(split)  # fails before the corpus is embedded
    reports = []
    for name in args.encoder or ["bundled"]:
        encoder = load_encoder(name)
        embeddings = corpus_embeddings(corpus, encoder, lambda *_: None)
        reports.append(encoder_report(encoder, corpus, embeddings, stamps))
    rows = [_flat(report) for report in reports]
    summary = {key: (fmean(row[key] for row in rows), spread([row[key] for row in rows])) for key in rows[0]}
    if args.json:
        print(json.dumps({"reports": reports, "mean_and_spread": summary}))
        return
    print(f"{', '.join(report['encoder'] for report in reports)}\n\n| measure | value |\n|---|---:|")
    for key, (mean, deviation) in summary.items():
        print(f"| {key} | {mean:.3f}" + (f" ± {deviation:.3f} |" if len(rows) > 1 else " |"))


def _sources(args: argparse.Namespace) -> None:
    from analysis.encoder_quality.sources import source_table, table
    from dits.bundled_encoder.config import EncoderTrainingConfig, read_recipe
    from dits.common.flags import whole_numbers
    from dits.corpora.names import open_corpus

    seeds = whole_numbers(args.seeds, "seeds")
    config = EncoderTrainingConfig(**read_recipe(args.recipe))
    corpus = open_corpus(args.corpus, lambda *_: None)
    rows = source_table(corpus, args.pairs, config, seeds, lambda line: print(line, file=sys.stderr, flush=True))
    print(table(rows))


def _flat(report: dict[str, Any], prefix: str = "") -> dict[str, float]:
    values: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{key} ")
        elif isinstance(value, (int, float)):
            values[prefix + key] = float(value)
    return values

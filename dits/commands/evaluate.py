"""`evaluate`: retrieval metrics of methods on a split of a corpus."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits.commands.common import add_command, add_sources, method_names, named_corpus, show_embedding, show_notices
from dits.model import METHODS

if TYPE_CHECKING:
    from dits.commands.common import Commands


def add(commands: "Commands") -> None:
    """Adds the command."""
    evaluate = add_command(commands, "evaluate", _evaluate, "Measure retrieval, text to video and video to text.")
    add_sources(evaluate, weights=False)
    evaluate.add_argument("--split", default="test", help="train, validation, test (default) or all")
    evaluate.add_argument("--queries", type=Path, metavar="FILE.csv", help="columns video_id, caption")
    evaluate.add_argument("--method", default=",".join(METHODS), help="comma-separated (default: all)")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.add_argument(
        "--weights", type=Path, metavar="DIR", action="append", help="as for search; several: mean and spread over them"
    )


def _evaluate(args: argparse.Namespace) -> None:
    from dits.corpus import read_queries
    from dits.embeddings import corpus_embeddings
    from dits.encoders import load_encoder
    from dits.evaluation import evaluate_scores, match_queries, mean_and_spread
    from dits.search import load_method

    methods = method_names(args.method)
    corpus = named_corpus(args)
    gallery = corpus.split(args.split)
    queries = read_queries(args.queries) if args.queries else gallery.queries()
    matched = match_queries(queries, gallery.ids)
    encoder = load_encoder(args.encoder)
    notices: list[str] = []
    embeddings = corpus_embeddings(corpus, encoder, show_embedding, notices.append).select(gallery.ids)
    show_notices(notices)
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

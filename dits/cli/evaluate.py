"""`evaluate`: retrieval metrics of methods on a split, with bootstrap intervals and paired tests."""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits.cli.arguments import (
    add_command,
    add_sources,
    check_target,
    corpus_from,
    method_names,
    show_embedding,
    show_notices,
)
from dits.common.errors import require
from dits.common.flags import add_config_flags, config_from
from dits.evaluation.significance import BootstrapConfig
from dits.models.retrieval import SEARCH_METHODS
from dits.scoring.gallery import build_gallery
from dits.scoring.postprocessing import DEFAULT_TEMPERATURES, POST_PROCESSING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dits.cli.arguments import Commands
    from dits.corpora.corpus import Corpus
    from dits.corpora.embeddings import CorpusEmbeddings
    from dits.encoders.openclip import Encoder
    from dits.evaluation.metrics import MatchedQueries, PostProcessing
    from dits.search.methods import LoadedMethod

Ranks = dict[str, dict[str, "np.ndarray"]]
"""Ranks by method and direction."""

_BANK_BLOCK = 1000  # queries of the bank per block of scores


def add(commands: "Commands") -> None:
    """Adds the command."""
    evaluate = add_command(commands, "evaluate", _evaluate, "Evaluate text-to-video and video-to-text retrieval.")
    add_sources(evaluate, weights=False)
    evaluate.add_argument("--split", default="test", help="train, validation, test (default) or all")
    evaluate.add_argument("--queries", type=Path, metavar="FILE.csv", help="queries, in columns video_id, caption")
    methods = f"comma-separated methods (default: {','.join(SEARCH_METHODS)}, or those of --compare)"
    evaluate.add_argument("--method", help=methods)
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.add_argument(
        "--weights", type=Path, metavar="DIR", action="append",
        help="folder with weights; repeat for mean and standard deviation over several",
    )  # fmt: skip
    evaluate.add_argument("--ranks", type=Path, metavar="FILE.csv", help="write the rank of every query to this file")
    evaluate.add_argument("--intervals", action="store_true", help="print bootstrap intervals; JSON always has them")
    evaluate.add_argument("--compare", metavar="A,B", help="test the difference of two methods on the same queries")
    evaluate.add_argument("--leak", action="store_true", help="measure the gain of pooling by the video's own caption")
    evaluate.add_argument("--post", choices=POST_PROCESSING, help="post-processing of the scores (default: none)")
    evaluate.add_argument("--temperature", type=float, help="for --post (default: 100 for dsl, 20 for qbnorm)")
    add_config_flags(evaluate, BootstrapConfig)


def _evaluate(args: argparse.Namespace) -> None:
    from dits.cli.evaluation_table import table
    from dits.corpora.corpus import read_queries
    from dits.corpora.embeddings import corpus_embeddings
    from dits.encoders.openclip import load_encoder
    from dits.evaluation.metrics import match_queries, mean_and_spread
    from dits.evaluation.repeated_captions import repeated_captions
    from dits.search.methods import load_method, weights_path

    methods = method_names(args.method or args.compare or ",".join(SEARCH_METHODS))
    pair = _pair(args.compare, methods)
    bootstrap = config_from(args, BootstrapConfig)
    _check(args)
    corpus = corpus_from(args)
    gallery = corpus.split(args.split)
    queries = read_queries(args.queries) if args.queries else gallery.queries()
    matched = match_queries(queries, gallery.ids)
    bank = corpus.split("train") if args.post == "qbnorm" else None
    encoder = load_encoder(args.encoder)
    for folder in args.weights or [None]:
        for name in methods:
            weights_path(name, encoder.id, folder)
    notices: list[str] = []
    ids = gallery.ids + (bank.ids if bank else [])
    embedded = corpus_embeddings(corpus, encoder, show_embedding, notices.append, ids)
    embeddings = embedded.select(gallery.ids)
    show_notices(notices)
    texts = encoder.encode_text([query.caption for query in matched.queries])
    post = _PostProcessor(args, bank, encoder, embedded, texts)
    runs, ranks, loaded = [], {}, {}
    alike = dict.fromkeys(methods, True)  # methods under which identical texts rank alike
    for weights in args.weights or [None]:
        loaded = {name: load_method(name, encoder, embeddings.frames, weights) for name in methods}
        ranks = {name: post.ranks(method, matched.targets) for name, method in loaded.items()}
        runs.append(_metrics(ranks))
        alike = {name: alike[name] and not method.model.alignment.is_stochastic for name, method in loaded.items()}
    results, spread = mean_and_spread(runs)
    report = {
        "corpus": args.corpus,
        "split": args.split,
        "encoder": encoder.id,
        "videos": len(gallery),
        "queries": len(matched.queries),
        "skipped": matched.skipped,
        "n": {direction: len(values) for direction, values in ranks[methods[0]].items()},
        "repeated_captions": asdict(repeated_captions(matched.queries))
        | {"binding": [name for name in methods if alike[name]]},
        "post": post.description(),
        "methods": results,
    }
    if len(runs) > 1:
        report |= {"runs": len(runs), "spread": spread}
    else:
        report |= {"bootstrap": asdict(bootstrap), "intervals": _intervals(ranks, matched, bootstrap)}
    if pair:
        report["comparison"] = _comparison(ranks, pair, matched, bootstrap)
    if args.leak:
        report["leak"] = _leak(loaded, texts, embeddings.frames, matched)
    if args.ranks:
        _write_ranks(args.ranks, ranks, matched, gallery.ids)
    print(json.dumps(report, ensure_ascii=False) if args.json else table(report, args.intervals))


def _pair(names: str | None, methods: list[str]) -> tuple[str, str] | None:
    """The two methods to compare, if any."""
    if names is None:
        return None
    pair = method_names(names)
    two = len(pair) == 2 and pair[0] != pair[1]
    require(two, f"--compare takes two different methods, not '{names}': give two, as in --compare dits,xpool.")
    first, second = pair
    both = {first, second} <= set(methods)
    require(both, f"--method does not include both {first} and {second}: add them, or leave --method out.")
    return first, second


def _check(args: argparse.Namespace) -> None:
    """Raises InputError for flags that do not go together, before the work."""
    single = {"--ranks": args.ranks, "--intervals": args.intervals, "--compare": args.compare, "--leak": args.leak}
    given = [flag for flag, value in single.items() if value]
    one_set = len(args.weights or []) < 2
    require(one_set or not given, f"{', '.join(given)} takes one set of weights: give --weights once.")
    require(not (args.leak and args.post), "--leak needs scores without post-processing: leave --post out.")
    require(args.temperature is None or bool(args.post), "--temperature needs --post: add one, as in --post dsl.")
    require(
        args.temperature is None or 0 < args.temperature <= 1000,
        f"The temperature must be above 0 and at most 1000, not {args.temperature}.",
    )
    require(
        args.post != "qbnorm" or args.split not in ("train", "all"),
        "The bank of --post qbnorm is the training split: evaluate another split, validation or test.",
    )
    check_target(args.ranks)


class _PostProcessor:
    """Computes the ranks of a method, with the post-processing of the flags, if any."""

    def __init__(
        self,
        args: argparse.Namespace,
        bank: "Corpus | None",
        encoder: "Encoder",
        embeddings: "CorpusEmbeddings",
        texts: "Tensor",
    ) -> None:
        self.name: str | None = args.post
        self.temperature = args.temperature or DEFAULT_TEMPERATURES.get(args.post)
        self.texts = texts
        if bank:
            self.bank_texts = encoder.encode_text([query.caption for query in bank.queries()])
            self.bank_frames = embeddings.select(bank.ids).frames

    def description(self) -> dict[str, Any] | None:
        """The post-processing as values for JSON."""
        if self.name is None:
            return None
        bank = {"bank": {"t2v": len(self.bank_texts), "v2t": len(self.bank_frames)}} if self.name == "qbnorm" else {}
        return {"name": self.name, "temperature": self.temperature, "note": POST_PROCESSING[self.name], **bank}

    def ranks(self, method: "LoadedMethod", targets: "np.ndarray") -> dict[str, "np.ndarray"]:
        """The ranks of both directions."""
        from dits.evaluation.metrics import ranks_by_direction

        return ranks_by_direction(method.gallery.scores(self.texts), targets, *self._functions(method))

    def _functions(self, method: "LoadedMethod") -> tuple["PostProcessing | None", "PostProcessing | None"]:
        """The post-processing of text-to-video and of video-to-text scores."""
        from functools import partial

        from dits.scoring.postprocessing import dual_softmax, query_bank, querybank_norm

        if self.name is None:
            return None, None
        assert self.temperature is not None
        if self.name == "dsl":
            return (partial(dual_softmax, temperature=self.temperature),) * 2
        blocks = (method.gallery.scores(block).numpy() for block in self.bank_texts.split(_BANK_BLOCK))
        transposed = (
            build_gallery(method.model, block).scores(self.texts).numpy().T
            for block in self.bank_frames.split(_BANK_BLOCK)
        )
        by_text, by_video = query_bank(blocks, self.temperature), query_bank(transposed, self.temperature)
        return partial(querybank_norm, bank=by_text), partial(querybank_norm, bank=by_video)


def _metrics(ranks: Ranks) -> dict[str, dict[str, dict[str, float]]]:
    from dits.evaluation.metrics import metrics_of

    return {m: {d: metrics_of(values).as_dict() for d, values in both.items()} for m, both in ranks.items()}


def _intervals(ranks: Ranks, matched: "MatchedQueries", config: BootstrapConfig) -> dict[str, Any]:
    from dits.evaluation.significance import intervals

    videos = _videos_of(matched)
    return {m: {d: intervals(values, videos[d], config) for d, values in both.items()} for m, both in ranks.items()}


def _comparison(
    ranks: Ranks, pair: tuple[str, str], matched: "MatchedQueries", config: BootstrapConfig
) -> dict[str, Any]:
    from dits.evaluation.significance import compare

    first, second = (ranks[name] for name in pair)
    tests = {d: asdict(compare(first[d], second[d], v, config)) for d, v in _videos_of(matched).items()}
    return {"methods": list(pair), **tests}


def _videos_of(matched: "MatchedQueries") -> dict[str, "np.ndarray"]:
    """For each direction, the gallery position of the video that each rank belongs to."""
    import numpy as np

    return {"t2v": matched.targets, "v2t": np.unique(matched.targets)}


def _leak(
    loaded: dict[str, "LoadedMethod"], texts: "Tensor", frames: "Tensor", matched: "MatchedQueries"
) -> dict[str, Any]:
    """Proper and leaky evaluation on the first caption of each video, and the difference of each metric."""
    import numpy as np
    import torch

    from dits.evaluation.leak import leaky_scores
    from dits.evaluation.metrics import evaluate_scores

    videos, first = np.unique(matched.targets, return_index=True)
    texts, frames = texts[torch.from_numpy(first)], frames[torch.from_numpy(videos)]
    own = np.arange(len(videos))
    methods = {}
    for name, method in loaded.items():
        proper = evaluate_scores(build_gallery(method.model, frames).scores(texts), own)
        leaky = evaluate_scores(leaky_scores(method.model, texts, frames), own)
        inflation = {d: {k: leaky[d][k] - value for k, value in proper[d].items()} for d in proper}
        methods[name] = {"proper": proper, "leaky": leaky, "inflation": inflation}
    return {"queries": len(videos), "left_out": len(matched.queries) - len(videos), "methods": methods}


def _write_ranks(path: Path, ranks: Ranks, matched: "MatchedQueries", ids: list[str]) -> None:
    from dits.common.files import write_csv

    write_csv(path, ("method", "direction", "query", "video", "caption", "rank"), _rank_rows(ranks, matched, ids))


def _rank_rows(ranks: Ranks, matched: "MatchedQueries", ids: list[str]) -> Iterator[Iterable[Any]]:
    """Yields one row per query and method. In video to text the query is the video, and the caption is empty."""
    videos = _videos_of(matched)
    captions = {"t2v": [query.caption for query in matched.queries], "v2t": [""] * len(videos["v2t"])}
    for method, both in ranks.items():
        for direction, values in both.items():
            rows = zip(videos[direction], captions[direction], values.tolist(), strict=True)
            for number, (video, caption, rank) in enumerate(rows):
                yield method, direction, number, ids[video], caption, rank

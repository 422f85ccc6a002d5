"""What `train` trains on: a corpus, and gathered pairs, embedded by the encoder or by those that have not seen them."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from dits.cli.arguments import show_embedding, show_progress, split_names

if TYPE_CHECKING:
    from dits.corpora.corpus import Corpus
    from dits.encoders.openclip import OpenClipEncoder
    from dits.training.trainer import PairData

DEFAULT_SOURCES = "left-out,templates,wallpapers"
"""Sources of pairs to train on with a corpus."""


def training_data(
    args: argparse.Namespace, corpus: "Corpus", encoder: "OpenClipEncoder", embedder: "OpenClipEncoder"
) -> tuple["PairData", dict[str, str]]:
    """The embeddings to train on, or with another `embedder` the features, and what the checkpoint says about pairs.

    With --cross-fit these are the gathered photographs alone, among which are the training clips of the demo corpus.
    """
    from dits.bundled_encoder.config import PHOTOS
    from dits.bundled_encoder.cross_fitting import cross_fitted_pairs
    from dits.bundled_encoder.data import load_pairs
    from dits.bundled_encoder.pair_embeddings import concatenate, embed_pairs
    from dits.bundled_encoder.pairs.shards import read_index
    from dits.corpora.embeddings import corpus_embeddings
    from dits.training.trainer import pair_data

    progress = partial(show_progress, "Embedding the pairs")
    if args.cross_fit:
        available = read_index(args.pairs)["sources"]
        sources = split_names(args.sources or ",".join(name for name in PHOTOS if name in available))
        data = cross_fitted_pairs(args.pairs, sources, encoder, args.cross_fit, progress)
        return data, {
            "pairs": f"{len(data.frames)} of {', '.join(sources)}, cross-fitted by {len(args.cross_fit)} folds"
        }
    training = corpus.split("train")
    sources = split_names(args.sources or DEFAULT_SOURCES)
    pairs = load_pairs(args.pairs, sources) if args.pairs else []
    data = pair_data(training, embedder, corpus_embeddings(corpus, embedder, show_embedding, ids=training.ids))
    if not pairs:
        return data, {}
    data = concatenate(data, embed_pairs(pairs, embedder, progress))
    return data, {"pairs": f"{len(pairs)} of {', '.join(sources)}"}

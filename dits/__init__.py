"""DITS: a Diffusion-Inspired Truncated Sampler for text-video retrieval (Wang et al., NeurIPS 2024).

    import dits

    engine = dits.load_engine()  # the demo corpus, the bundled encoder, the shipped weights
    engine.search("two boxers in a ring", method="dits").hits

Public names are imported when they are first used.
"""

from dits.common.lazy import lazy_names

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "dits.common.errors": ("DitsError",),
        "dits.corpora.corpus": ("Clip", "Corpus", "Query"),
        "dits.corpora.datasets": ("DATASETS",),
        "dits.corpora.embeddings": ("CorpusEmbeddings", "corpus_embeddings"),
        "dits.corpora.names": ("open_corpus",),
        "dits.encoders.openclip": ("load_encoder",),
        "dits.evaluation.metrics": ("evaluate_scores",),
        "dits.index.adding.run": ("add_videos",),
        "dits.index.store": ("VideoIndex",),
        "dits.models.checkpoint": ("load_checkpoint", "save_checkpoint"),
        "dits.models.pooling": ("PoolingConfig", "XPool"),
        "dits.models.retrieval": ("METHODS", "Method", "ModelConfig", "RetrievalModel"),
        "dits.models.sampler": ("DitsSampler", "SamplerConfig"),
        "dits.models.schedule": ("linear_schedule",),
        "dits.scoring.gallery": ("build_gallery",),
        "dits.search.engine": ("SearchEngine",),
        "dits.search.loading": ("load_engine",),
        "dits.training.trainer": ("TrainingConfig", "train"),
        "dits.video.sampling": ("sample_frames",),
    },
)

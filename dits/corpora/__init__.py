"""Corpora: clips with captions and splits, the demo corpus, the benchmarks, and cached frame embeddings."""

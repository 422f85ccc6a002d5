"""Search: from a sentence to ranked videos, over a corpus, an index, or the shards of a cluster."""

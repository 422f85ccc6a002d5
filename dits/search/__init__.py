"""Search: ranks the videos of a corpus, of an index, or of the shards of a cluster for a query."""

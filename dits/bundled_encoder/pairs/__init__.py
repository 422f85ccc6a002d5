"""Image-text pairs from installed packages: the sources, gathering, near-duplicates, and the shard format."""

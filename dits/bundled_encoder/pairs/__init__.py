"""Image-text pairs from installed packages: gathering, one shard format, and what the encoder learns from them."""

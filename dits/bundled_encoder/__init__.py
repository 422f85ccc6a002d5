"""The recipe of the bundled encoder: image-text pairs, configuration and training."""

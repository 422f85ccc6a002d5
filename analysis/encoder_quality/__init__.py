"""Measures of an encoder's quality, and the contribution of each source of its training pairs."""

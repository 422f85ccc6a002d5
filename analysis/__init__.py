"""Measures and pictures of the embedding space."""

"""Projections of embeddings and trajectories to two or three dimensions, and how far to trust them."""

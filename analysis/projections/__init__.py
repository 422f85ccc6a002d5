"""Projections of embeddings and trajectories to two or three dimensions, and their trust measures."""

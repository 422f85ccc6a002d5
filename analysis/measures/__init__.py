"""Measures of the modality gap and of trajectories, with bootstrap intervals."""

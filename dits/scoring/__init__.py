"""Scoring: exact X-Pool scores and their kernels, galleries, ranking, post-processing of scores."""

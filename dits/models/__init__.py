"""Retrieval models: schedule, network, sampler, pooling, baselines, losses and checkpoints."""

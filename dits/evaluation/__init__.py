"""Evaluation: retrieval metrics, their significance, and diagnostics of what distorts them."""

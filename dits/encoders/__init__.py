"""Encoders, from texts and frames to embeddings in one joint space: OpenCLIP models and the bundled encoder."""

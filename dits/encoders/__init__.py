"""Encoders: texts and frames to embeddings in one joint space. OpenCLIP models, the bundled one, their transforms."""

"""Training of retrieval models: on cached embeddings, jointly with the encoder, or prepared for any encoder."""

"""Adding videos to an index: planning, reading, embedding and storing, on one machine or on a Ray cluster."""

"""Joint training of encoder and retrieval model from video, in one process or several."""

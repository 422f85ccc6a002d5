"""Video files: probing, frame sampling, segments, and worker processes that survive damaged files."""

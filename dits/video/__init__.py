"""Video files: probing, frame sampling, segments, and worker processes that a damaged file may kill."""

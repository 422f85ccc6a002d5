"""What the whole page runs on: background threads, the request queue, caches, shutdown, the GPU."""

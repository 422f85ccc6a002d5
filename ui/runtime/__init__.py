"""Services of the running app: background threads, the request queue, caches, shutdown, the GPU."""

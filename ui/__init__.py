"""The page: everything that speaks Gradio."""

import os
from contextlib import suppress

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio reads it: the app calls no one

with suppress(ImportError):
    import spaces  # noqa: F401  before PyTorch, which it changes where GPUs are lent (ui/gpu.py)

"""The page: everything that speaks Gradio."""

import os
from contextlib import suppress

# Before Gradio and the client of its hub read them: the app calls no one.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Before PyTorch's threads, and NumPy's: those without work sleep, or are not there, for what else is computed beside
# them needs the cores. Analyses in a crowd took five times as long with NumPy's.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before MKL's first product: on some Intel processors the rows of a product otherwise differ in their last bits with
# the number of rows, and a search's answer with the searches that are computed beside it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

with suppress(ImportError):
    import spaces  # noqa: F401  before PyTorch, which it changes where GPUs are lent (ui/runtime/gpu.py)

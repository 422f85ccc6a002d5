"""The user interface: everything that uses Gradio."""

import os
from contextlib import suppress

# Set before Gradio and huggingface_hub are imported: the app sends no telemetry.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# Set before PyTorch and NumPy start threads: idle threads must leave the cores to other work. With OpenBLAS threads,
# concurrent analyses took five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Set before MKL's first matrix product: on some Intel processors the last bits of a row otherwise depend on the number
# of rows, so a search result would depend on the other queries of its batch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

with suppress(ImportError):
    import spaces  # noqa: F401  before PyTorch, which it patches on ZeroGPU (ui/runtime/gpu.py)

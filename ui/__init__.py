"""The page: everything that speaks Gradio."""

import os

# Before Gradio and the client of its hub read them: the app calls no one.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

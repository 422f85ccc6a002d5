"""The page: everything that speaks Gradio."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio reads it: the app calls no one

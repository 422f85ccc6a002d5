"""DITS: a Diffusion-Inspired Truncated Sampler for text-video retrieval (Wang et al., NeurIPS 2024)."""

__version__ = "0.1.0"

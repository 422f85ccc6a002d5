"""Embeddings of a corpus's captions, kept in the cache: with them the analysis of a corpus opens in a moment."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dits.common.files import atomic_path, cache_root, optional_cache_write, parse_json, sha256_of_json
from dits.encoders.openclip import Encoder


def caption_embeddings(encoder: Encoder, captions: Sequence[str], folder: Path | None = None) -> Tensor:
    """Embeddings (N, d) of captions, read from the folder or computed and kept there.

    Args:
        folder: by default one of the cache, which need not have room for them.

    Raises:
        StorageError: the folder that was named cannot be written.
    """
    made_from = {"encoder": encoder.id, "captions": list(captions)}
    key = sha256_of_json(made_from)
    path = (folder or cache_root() / "captions") / f"{key[:16]}.safetensors"
    kept = _kept(path, key)
    if kept is not None and kept.shape == (len(captions), encoder.dim):
        return kept
    texts = encoder.encode_text(captions).cpu().contiguous()
    with nullcontext() if folder else optional_cache_write(), atomic_path(path) as temporary:
        save_file({"texts": texts}, temporary, metadata={"dits": json.dumps({"key": key})})
    return texts


def _kept(path: Path, key: str) -> Tensor | None:
    """What the file holds, if it was made from the same; None where it is not there, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            made_from = parse_json((file.metadata() or {})["dits"])
            return file.get_tensor("texts") if made_from == {"key": key} else None
    except (SafetensorError, OSError, ValueError, KeyError):
        return None

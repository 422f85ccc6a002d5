"""A cache of caption embeddings, so that the analysis of a corpus opens without embedding its captions again."""

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
    """Embeddings (N, d) of captions, read from the folder, or computed and written there.

    Args:
        folder: by default a folder of the cache; a failure to write there is not an error.

    Raises:
        StorageError: the given folder cannot be written.
    """
    key = sha256_of_json({"encoder": encoder.id, "captions": list(captions)})
    path = (folder or cache_root() / "captions") / f"{key[:16]}.safetensors"
    cached = _load(path, key)
    if cached is not None and cached.shape == (len(captions), encoder.dim):
        return cached
    texts = encoder.encode_text(captions).cpu().contiguous()
    with nullcontext() if folder else optional_cache_write(), atomic_path(path) as temporary:
        save_file({"texts": texts}, temporary, metadata={"dits": json.dumps({"key": key})})
    return texts


def _load(path: Path, key: str) -> Tensor | None:
    """The embeddings in the file, or None if it is missing, damaged or has another key."""
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})["dits"])
            return file.get_tensor("texts") if header == {"key": key} else None
    except (SafetensorError, OSError, ValueError, KeyError):
        return None

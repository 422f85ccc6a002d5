"""Cached embeddings by clip: what an interrupted run has done, and splits that were embedded without the others.

A file holds several clips. A clip is found by its key, whichever split and corpus it was embedded for.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dits.common.files import atomic_path, cache_root, parse_json, sha256_of_json
from dits.corpora.corpus import FRAMES, Clip
from dits.encoders.openclip import Encoder

_FORMAT = 1
_HEADER = "dits-clips"


FileState = tuple[int, int]
"""Size of a file in bytes, and time of its last change in nanoseconds."""


class ClipEmbeddings(NamedTuple):
    """The frame embeddings (FRAMES, d) of a clip, float16, and the times (FRAMES,) of its frames, in seconds."""

    frames: Tensor
    times: Tensor


class ClipCache:
    """The cached clips of an encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self._dim = encoder.id, encoder.dim
        self._folder = cache_root() / "embeddings"
        self._prefix = f"clips-{sha256_of_json([encoder.id, FRAMES, _FORMAT])[:12]}-"

    def keys(self, clips: Sequence[Clip], files: Sequence[FileState]) -> list[str]:
        """The keys of clips: hashes of their file's path and state, and of their part of it."""
        paths = [os.path.abspath(clip.path) for clip in clips]
        return [
            sha256_of_json([path, *state, clip.start, clip.end])[:24]
            for path, state, clip in zip(paths, files, clips, strict=True)
        ]

    def read(self, keys: Sequence[str]) -> tuple[dict[str, ClipEmbeddings], int]:
        """The cached clips among `keys`, by key, and the number of files that they are in.

        A file that is damaged, or that another process has just removed, counts as missing.
        """
        missing = set(keys)
        found: dict[str, ClipEmbeddings] = {}
        files = 0
        for path in self._files():
            rows = self._rows(path, missing)
            found |= rows
            missing -= rows.keys()
            files += bool(rows)
        return found, files

    def write(self, clips: Mapping[str, ClipEmbeddings]) -> Path:
        """Write clips, by key, to one file, and return its path.

        Raises:
            StorageError: the folder cannot be written, or the disk is full.
        """
        keys = list(clips)
        path = self._folder / f"{self._prefix}{sha256_of_json(keys)[:12]}.safetensors"
        tensors = {
            "frames": torch.stack([clip.frames for clip in clips.values()]),
            "times": torch.stack([clip.times for clip in clips.values()]),
        }
        header = {"format": _FORMAT, "encoder": self._encoder, "keys": keys}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={_HEADER: json.dumps(header)})
        return path

    def remove(self, keys: Sequence[str], but: Path | None = None) -> None:
        """Remove the files of which all clips are among `keys`, but not the file `but`."""
        for path in self._files():
            own = set(self._keys_in(path))
            if own and own <= set(keys) and path != but:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._prefix}*.safetensors"))

    def _keys_in(self, path: Path) -> list[str]:
        """The keys of the clips of a file; empty if it is damaged, or of another encoder."""
        with suppress(SafetensorError, OSError, ValueError, KeyError, TypeError), safe_open(path, "pt") as file:
            header = parse_json((file.metadata() or {})[_HEADER])
            if header["encoder"] == self._encoder:
                return [str(key) for key in header["keys"]]
        return []

    def _rows(self, path: Path, wanted: set[str]) -> dict[str, ClipEmbeddings]:
        keys = self._keys_in(path)
        if wanted.isdisjoint(keys):
            return {}
        with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
            frames, times = file.get_tensor("frames"), file.get_tensor("times")
            if frames.shape == (len(keys), FRAMES, self._dim) and times.shape == (len(keys), FRAMES):
                rows = map(ClipEmbeddings, frames, times)
                return {key: row for key, row in zip(keys, rows, strict=True) if key in wanted}
        return {}

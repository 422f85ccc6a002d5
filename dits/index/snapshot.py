"""An index's embeddings as arrays on the local disk, mapped into memory: what search runs on.

A snapshot belongs to one version of the index, is never changed, and can be made again from the index. Its rows are in
the order of the segments' ids.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from filelock import FileLock
from torch import Tensor

from dits.corpus import Clip
from dits.errors import IndexStoreError
from dits.files import cache_root, make_folder, sha256_of_json, storage_errors, write_json
from dits.index.store import VideoIndex
from dits.pooling import mean_pool

_FORMAT = 1
_ROWS_AT_ONCE = 1024


class Snapshot:
    """The searchable rows of one version of an index.

    Attributes:
        folder: where the arrays lie.
        frames: (V, F, d) frame embeddings, float16.
        means: (V, d) mean-pooled embeddings of length 1, float32.
        times: (V, F) when each frame is shown, in seconds.
    """

    def __init__(self, folder: Path) -> None:
        shapes = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))["shapes"]
        self.folder = folder
        self.frames = _mapped(folder / "frames", shapes["frames"], np.float16)
        self.means = _mapped(folder / "means", shapes["means"], np.float32)
        self.times = _mapped(folder / "times", shapes["times"], np.float32)
        with pa.memory_map(str(folder / "rows.arrow")) as source:
            self._rows = pa.ipc.open_file(source).read_all().combine_chunks()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def ids(self) -> list[str]:
        """The segments' ids, in the order of the rows."""
        return self._rows["id"].to_pylist()

    @property
    def clips(self) -> "SnapshotClips":
        """The segments as clips, each made when it is asked for."""
        return SnapshotClips(self._rows)

    def derived(self, name: str, width: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Numbers (V, width), float32, that `compute` makes of frames (B, F, d): made once, and mapped from then on.

        Args:
            name: says what made them; a file's name.

        Raises:
            StorageError: the cache folder cannot be written.
        """
        path = self.folder / name
        with FileLock(self.folder / f"{name}.lock"), storage_errors(self.folder):
            if not path.exists():
                temporary = path.with_suffix(".part")
                made = np.memmap(temporary, np.float32, "w+", shape=(len(self), width))
                for start in range(0, len(self), _ROWS_AT_ONCE):
                    block = self.frames[start : start + _ROWS_AT_ONCE]
                    made[start : start + len(block)] = compute(block).numpy()
                made.flush()
                temporary.replace(path)
        return _mapped(path, (len(self), width), np.float32)


class SnapshotClips(Sequence[Clip]):
    """The rows of a snapshot as clips; a million of them cost nothing until they are looked at."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        row = self._rows.slice(range(len(self))[index], 1).to_pylist()[0]
        path = Path(os.fsdecode(row["path"]))
        whole = row["start"] == 0 and row["end"] >= row["duration"]
        return Clip(
            id=row["id"],
            path=path,
            split="test",
            group=row["video"],
            captions=(),
            start=None if whole else row["start"],
            end=None if whole else row["end"],
        )


def open_snapshot(index: VideoIndex, progress: Callable[[int, int], None] | None = None) -> Snapshot:
    """The snapshot of an index as it is now, made if it is not there; older ones are removed.

    Args:
        progress: told how many rows of how many are copied.

    Raises:
        IndexStoreError: the index cannot be read.
        StorageError: the cache folder cannot be written.
    """
    version = index.version
    root = cache_root() / "index" / sha256_of_json([index.location, index.encoder])[:16]
    make_folder(root)
    with FileLock(root / "lock"), storage_errors(root):
        folder = root / f"{_FORMAT}-{version}"
        if not folder.is_dir():
            temporary = Path(tempfile.mkdtemp(dir=root, prefix="making-"))
            try:
                _write(index, temporary, progress)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for other in root.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)  # who has mapped it keeps it
    return Snapshot(folder)


def _write(index: VideoIndex, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    rows = index.rows(["id", "path", "start", "end", "duration", "video"])
    ids = rows["id"].combine_chunks()
    count = len(rows)
    shapes = {"frames": (count, index.frames, index.dim), "means": (count, index.dim), "times": (count, index.frames)}
    kinds = {"frames": np.float16, "means": np.float32, "times": np.float32}
    arrays = {name: _new(folder / name, shape, kinds[name]) for name, shape in shapes.items()}
    done = 0
    for batch in index.batches(["id", "frames", "times"], _ROWS_AT_ONCE):
        at = pc.index_in(batch["id"], value_set=ids)
        known = at.is_valid()  # a row that was added since is not
        batch, at = batch.filter(known), at.filter(known).to_numpy()
        frames = batch["frames"].flatten().to_numpy().reshape(-1, index.frames, index.dim)
        arrays["frames"][at] = frames
        arrays["means"][at] = mean_pool(torch.from_numpy(frames).float()).numpy()
        arrays["times"][at] = batch["times"].flatten().to_numpy().reshape(-1, index.frames)
        done += len(at)
        if progress:
            progress(done, count)
    if done < count:
        raise IndexStoreError(f"The index {index.location} changed while it was read: run the command again.")
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    write_json(folder / "snapshot.json", {"format": _FORMAT, "index": index.location, "shapes": shapes})


def _new(path: Path, shape: tuple[int, ...], kind: type) -> np.ndarray:
    if not shape[0]:  # nothing can be mapped
        path.touch()
        return np.empty(shape, kind)
    return np.memmap(path, kind, "w+", shape=shape)


def _mapped(path: Path, shape: Sequence[int], kind: type) -> Tensor:
    """A file as a tensor. Nothing writes to it; copy-on-write is what PyTorch takes without a warning."""
    return torch.from_numpy(np.memmap(path, kind, "c", shape=tuple(shape)) if shape[0] else np.empty(shape, kind))

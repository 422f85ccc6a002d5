"""Snapshots: an index's embeddings as memory-mapped arrays on the local disk, which search reads.

A snapshot belongs to one version of the index, never changes, and can be made again from the index. Its rows are sorted
by segment id. Segments with equal ids have equal frames, so a new snapshot copies the rows of the previous one, with
their derived arrays, and reads only new rows from the index.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor

from dits.common.errors import IndexStoreError
from dits.common.files import cache_root, make_folder, sha256_of_json, storage_errors, write_json
from dits.corpora.corpus import Clip, Progress
from dits.index.store import VideoIndex
from dits.scoring.exact import BLOCK

_FORMAT = 1
_ROWS_PER_BATCH = 1024
_CARRIED = ".carried"  # instead of ".json", while the new rows of copied arrays are not derived yet
_NEW_ROWS = "new_rows.npy"  # rows that the previous snapshot did not have
_SMALL_STEP = 64
_ID = "S42"  # see `dits.index.schema.segment_id`


class Snapshot:
    """The searchable rows of one version of an index, or some of them.

    Attributes:
        folder: the folder of the arrays.
        frames: (V, F, d) frame embeddings, float16.
        times: (V, F) timestamps of the frames, in seconds.
        ids: (V,) the segments' ids as bytes, ascending.
        clips: the segments as clips, created on access.
    """

    def __init__(self, folder: Path) -> None:
        shape = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))["shape"]
        self.folder = folder
        self.frames = _mapped(folder / "frames", shape, np.float16)
        self.times = _mapped(folder / "times", shape[:2], np.float32)
        self.ids = np.memmap(folder / "ids", _ID, "r", shape=shape[0]) if shape[0] else np.empty(0, _ID)
        with pa.memory_map(str(folder / "rows.arrow")) as source:
            self.clips = SnapshotClips(pa.ipc.open_file(source).read_all().combine_chunks())

    def __len__(self) -> int:
        return len(self.frames)

    def derived(self, weights: str, derive: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Arrays that `derive` computes from frames (B, F, d), one row per segment; computed once, then memory-mapped.

        Args:
            weights: identifies what `derive` depends on; part of the file names. Rows that the previous snapshot has
                under the same name are copied.
            derive: for example `dits.scoring.gallery.derive` of a model. Its blocks begin at multiples of `BLOCK`, so
                its results do not depend on the number of rows.

        Raises:
            StorageError: the cache folder cannot be written.
        """
        listed = self.folder / f"{weights}.json"
        with FileLock(self.folder / f"{weights}.lock"), storage_errors(self.folder):
            if not listed.exists():
                shapes = self._derive(weights, derive)
                write_json(listed, shapes)  # written last: it marks the arrays as complete
        shapes = json.loads(listed.read_text(encoding="utf-8"))
        return {name: _mapped(self.folder / f"{weights}-{name}", shape, np.float32) for name, shape in shapes.items()}

    def derived_shapes(self) -> dict[str, dict[str, list[int]]]:
        """The shapes of the complete arrays, by the `weights` of `derived` and by array name."""
        lists = [path for path in self.folder.glob("[!.]*.json") if path.name != "snapshot.json"]
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in lists}

    def _derive(self, weights: str, derive: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, list[int]]:
        """Computes the rows that were not copied; returns the shapes of the arrays."""
        carried = self.folder / f"{weights}{_CARRIED}"
        shapes: dict[str, list[int]] = json.loads(carried.read_text(encoding="utf-8")) if carried.exists() else {}
        arrays = {name: _opened(self.folder / f"{weights}-{name}", shape) for name, shape in shapes.items()}
        rows = torch.from_numpy(np.load(self.folder / _NEW_ROWS)) if shapes else torch.arange(len(self))
        for block in rows.split(BLOCK) if len(rows) or not shapes else ():
            for name, part in derive(self.frames[block]).items():
                if name not in arrays:
                    shapes[name] = [len(self), *part.shape[1:]]
                    arrays[name] = _new(self.folder / f"{weights}-{name}", shapes[name], np.float32)
                arrays[name][block.numpy()] = part.cpu().numpy()
        _flush(arrays)
        return shapes


class SnapshotClips(Sequence[Clip]):
    """The rows of a snapshot as clips, created on access, so that a million rows cost nothing."""

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
        start, end = (None, None) if whole else (row["start"], row["end"])
        return Clip(id=row["id"], path=path, split="test", group=row["video"], captions=(), start=start, end=end)


def open_snapshot(
    index: VideoIndex,
    shard: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
    root: Path | None = None,
) -> Snapshot:
    """The snapshot of the latest version of an index; made if it does not exist. Older snapshots are removed.

    Args:
        shard: number and total of the shards, see `shard_bounds`: a machine of a cluster needs one shard.
        progress: called with the numbers of copied rows and of all rows.
        root: the folder of this index's snapshots; by default in the cache.

    Raises:
        IndexStoreError: the index cannot be read.
        StorageError: the cache folder cannot be written.
    """
    root = root or cache_root() / "index" / sha256_of_json([index.location, index.encoder, *shard])[:16]
    make_folder(root)
    with FileLock(root / "lock"), storage_errors(root):
        prefix = f"{_FORMAT}-{index.identity}"
        folder = root / f"{prefix}-{index.version}"
        if not folder.is_dir():
            previous = max(root.glob(f"{prefix}-*"), key=lambda path: path.stat().st_mtime, default=None)
            temporary = Path(tempfile.mkdtemp(dir=root, prefix="making-"))
            try:
                _write(index, shard, temporary, Snapshot(previous) if previous else None, progress)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for other in root.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)  # existing memory maps stay valid
    return Snapshot(folder)


def shard_bounds(rows: int, parts: int) -> list[tuple[int, int]]:
    """The first row of every shard, and the row after its last.

    Shards begin at multiples of `BLOCK`, or of 64 if there are too few rows, so that what is computed for a segment is
    the same to the bit in a shard and in the whole index.
    """
    step = BLOCK if rows >= parts * BLOCK else _SMALL_STEP
    blocks = -(-rows // step)
    edges = [min(rows, step * (blocks * n // parts)) for n in range(parts + 1)]
    return list(pairwise(edges))


def _write(
    index: VideoIndex, shard: tuple[int, int], folder: Path, previous: Snapshot | None, progress: Progress | None
) -> None:
    rows = index.rows(["id", "path", "start", "end", "duration", "video"])
    first, last = shard_bounds(len(rows), shard[1])[shard[0]]
    rows = rows.slice(first, last - first).combine_chunks()
    shape = (len(rows), index.frames, index.dim)
    frames = _new(folder / "frames", shape, np.float16)
    times = _new(folder / "times", shape[:2], np.float32)
    ids = _new(folder / "ids", shape[:1], _ID)
    ids[:] = np.array(rows["id"].to_pylist(), _ID)
    missing = np.arange(len(ids)) if previous is None else _carry_over(previous, ids, frames, times, folder)
    np.save(folder / _NEW_ROWS, missing)
    done = len(ids) - len(missing)
    missing_ids = ids[missing]
    for batch in index.batches_with(missing_ids.astype(str).tolist(), ["id", "frames", "times"], _ROWS_PER_BATCH):
        at, places = find_rows(missing_ids, np.array(batch["id"].to_pylist(), _ID))
        frames[missing[at]] = batch["frames"].flatten().to_numpy().reshape(-1, *shape[1:])[places]
        times[missing[at]] = batch["times"].flatten().to_numpy().reshape(-1, shape[1])[places]
        done += len(at)
        if progress:
            progress(done, len(ids))
    if done < len(ids):
        raise IndexStoreError(f"The index {index.location} changed while it was read: run the command again.")
    _flush({"frames": frames, "times": times, "ids": ids})
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    write_json(folder / "snapshot.json", {"format": _FORMAT, "index": index.location, "shape": shape})


def _carry_over(previous: Snapshot, ids: np.ndarray, frames: np.ndarray, times: np.ndarray, folder: Path) -> np.ndarray:
    """Copies rows, with their derived arrays, from an older snapshot; returns the rows that it does not have."""
    old, new = find_rows(previous.ids, ids)
    pairs = [(previous.frames.numpy(), frames), (previous.times.numpy(), times)]
    for weights, shapes in previous.derived_shapes().items():
        for name, (_, *shape) in shapes.items():
            source = np.memmap(previous.folder / f"{weights}-{name}", np.float32, "r").reshape(-1, *shape)
            pairs.append((source, _new(folder / f"{weights}-{name}", (len(ids), *shape), np.float32)))
        resized = {name: [len(ids), *shape] for name, (_, *shape) in shapes.items()}
        write_json(folder / f"{weights}{_CARRIED}", resized)
    for start in range(0, len(new), _ROWS_PER_BATCH):
        block = slice(start, start + _ROWS_PER_BATCH)
        for source, target in pairs:
            target[new[block]] = source[old[block]]
    return np.setdiff1d(np.arange(len(ids)), new, assume_unique=True)


def find_rows(ids: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions in ascending `ids` of the wanted ids that it contains, and their positions in `wanted`."""
    at = np.searchsorted(ids, wanted)
    places = np.flatnonzero(at < len(ids))
    places = places[ids[at[places]] == wanted[places]]
    return at[places], places


def _new(path: Path, shape: Sequence[int], kind: Any) -> np.ndarray:
    if not shape[0]:  # an empty file cannot be mapped
        path.touch()
        return np.empty(shape, kind)
    return np.memmap(path, kind, "w+", shape=tuple(shape))


def _opened(path: Path, shape: Sequence[int]) -> np.ndarray:
    return np.memmap(path, np.float32, "r+", shape=tuple(shape)) if shape[0] else np.empty(shape, np.float32)


def _flush(arrays: Mapping[str, np.ndarray]) -> None:
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()


def _mapped(path: Path, shape: Sequence[int], kind: Any) -> Tensor:
    """Maps a file as a tensor that nothing writes to; copy-on-write, because PyTorch warns about read-only maps."""
    return torch.from_numpy(np.memmap(path, kind, "c", shape=tuple(shape)) if shape[0] else np.empty(shape, kind))

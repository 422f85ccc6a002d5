"""Export of an index to plain files."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from dits.common.errors import InputError
from dits.common.files import atomic_path, write_csv
from dits.index.scan import path_text
from dits.index.store import VideoIndex

FORMATS = (".csv", ".safetensors")

_ROWS = ("id", "path", "start", "end", "duration", "video")


def export_index(index: VideoIndex, out: Path) -> int:
    """Writes the searchable segments to a file; returns their number.

    Args:
        out: a CSV file with id, path, start, end, duration and video (an id of the content); or a safetensors file
            with `frames` (V, F, d) and `video` (V, d), float16, `times` (V, F), and the metadata entry "rows": the
            rows as JSON, in the same order.

    Raises:
        InputError: the index is empty, or the file name ends in neither .csv nor .safetensors.
        DitsError: the index cannot be read, or the file cannot be written.
    """
    rows = index.rows(_ROWS)
    if not len(rows):
        raise InputError(f"The index {index.location} holds no videos to export: add some first.")
    values = [row | {"path": path_text(row["path"])} for row in rows.to_pylist()]
    if out.suffix == ".csv":
        write_csv(out, _ROWS, ([row[name] for name in _ROWS] for row in values))
        return len(values)
    if out.suffix != ".safetensors":
        raise InputError(f"{out} is neither a .csv nor a .safetensors file: give a name that ends in one of them.")
    frames = np.empty((len(values), index.frames, index.dim), np.float16)
    means = np.empty((len(values), index.dim), np.float16)
    times = np.empty((len(values), index.frames), np.float32)
    position = {row["id"]: number for number, row in enumerate(values)}
    for batch in index.batches(["id", "mean", "frames", "times"]):
        at = [position[name] for name in batch["id"].to_pylist()]
        frames[at] = batch["frames"].flatten().to_numpy().reshape(-1, index.frames, index.dim)
        means[at] = batch["mean"].flatten().to_numpy().reshape(-1, index.dim)
        times[at] = batch["times"].flatten().to_numpy().reshape(-1, index.frames)
    metadata = {"encoder": index.encoder, "rows": json.dumps(values)}
    with atomic_path(out) as temporary:
        save_file({"frames": frames, "video": means, "times": times}, temporary, metadata=metadata)
    return len(values)

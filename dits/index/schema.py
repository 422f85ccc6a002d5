"""The rows of the index: one row per segment of a file, or one row with the reason why a file has no segments."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

FORMAT = 1
"""The format version of the table. A newer one is refused."""

ID = pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
"""The first column of every table: LanceDB lets no two writers insert the same primary key."""

OK, FAILED, DUPLICATE, MISSING = "ok", "failed", "duplicate", "missing"
"""Status of a row: searchable; not decodable; same content as another file; file missing."""


@dataclass(frozen=True)
class SegmentRow:
    """An embedded segment of a file.

    Attributes:
        path: the file's path as the system has it; not necessarily UTF-8.
        size, mtime: size in bytes and modification time in nanoseconds, when the file was read.
        video: the first 20 hexadecimal digits of the content's SHA-256; the same for copies.
        segmenting: how the file was cut: "whole", "10s", "scenes".
        segments: number of segments of the file.
        duration: of the file, in seconds.
        start, end: of the segment, in seconds.
        times: (F,) timestamp of each frame, in seconds.
        thumbnail: a JPEG.
        mean: (d,) mean-pooled frame embedding, of length 1.
        frames: (F, d) frame embeddings, float16.
    """

    path: bytes
    size: int
    mtime: int
    video: str
    segmenting: str
    segments: int
    duration: float
    start: float
    end: float
    times: np.ndarray
    thumbnail: bytes
    mean: np.ndarray
    frames: np.ndarray
    status: str = OK
    reason: str = ""

    @property
    def id(self) -> str:
        """The segment by content and time: moving or renaming the file does not change it."""
        return segment_id(self.video, self.start, self.end)


@dataclass(frozen=True)
class FileRow:
    """A file without segments of its own: it failed, or is a copy of another.

    Attributes:
        size, mtime: see `SegmentRow`; 0 if unknown.
        video: see `SegmentRow`; empty if the file could not be read.
        segmenting: how the file was to be cut.
        status: FAILED or DUPLICATE.
        reason: one sentence for the user.
    """

    path: bytes
    size: int
    mtime: int
    video: str
    segmenting: str
    status: str
    reason: str

    @property
    def id(self) -> str:
        """The id of the file, see `file_id`."""
        return file_id(self.path)


def segment_id(video: str, start: float, end: float) -> str:
    """The id of a segment, with its times in milliseconds: the ids of one video sort by time."""
    return f"{video}-{round(start * 1000):010d}-{round(end * 1000):010d}"


def file_id(path: bytes) -> str:
    """The id of a file without segments of its own."""
    return f"file-{hashlib.sha256(path).hexdigest()[:20]}"


def table_schema(encoder: str, dim: int, frames: int, fingerprint: Sequence[float]) -> pa.Schema:
    """The columns of the table, with format, encoder and fingerprint as metadata."""
    columns = {
        "path": pa.binary(),
        "size": pa.int64(),
        "mtime": pa.int64(),
        "video": pa.string(),
        "segmenting": pa.string(),
        "segments": pa.int32(),
        "status": pa.string(),
        "reason": pa.string(),
        "duration": pa.float64(),
        "start": pa.float64(),
        "end": pa.float64(),
        "times": pa.list_(pa.float32(), frames),
        "thumbnail": pa.binary(),
        "mean": pa.list_(pa.float16(), dim),
        "frames": pa.list_(pa.float16(), frames * dim),
    }
    metadata = {
        "dits.format": str(FORMAT),
        "dits.encoder": encoder,
        "dits.frames": str(frames),
        "dits.table": uuid.uuid4().hex,
        "dits.fingerprint": " ".join(f"{value:.6g}" for value in fingerprint),
    }
    return pa.schema([ID, *(pa.field(*c) for c in columns.items())], metadata=metadata)


def as_table(rows: Sequence["SegmentRow | FileRow"], schema: pa.Schema) -> pa.Table:
    """Converts rows to an Arrow table."""
    arrays = [_column(field, [getattr(row, field.name, None) for row in rows]) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    """One column. Vectors are converted as one array, which is faster than value by value."""
    if not pa.types.is_fixed_size_list(field.type):
        return pa.array(values, field.type)
    size, kind = field.type.list_size, field.type.value_type.to_pandas_dtype()
    empty = np.zeros(size, kind)
    flat = np.concatenate([empty if value is None else np.ravel(value).astype(kind) for value in values])
    absent = pa.array([value is None for value in values])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type, mask=absent)

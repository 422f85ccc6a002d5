"""What the index keeps of a file: a row for every segment, or one row that says why there is none."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

FORMAT = 1
"""Of the table. A reader refuses a newer one."""

ID = pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
"""The first column of every table: LanceDB lets no two writers insert the same primary key."""

OK, FAILED, DUPLICATE, MISSING = "ok", "failed", "duplicate", "missing"
"""Status of a row: searched; not decodable; of the same content as another file; its file is gone."""


@dataclass(frozen=True)
class SegmentRow:
    """An embedded segment of a file.

    Attributes:
        path: the file, as the system names it, which need not be UTF-8.
        size, mtime: the file's when it was read, in bytes and nanoseconds.
        video: the start of the SHA-256 of its content: the same for copies.
        segmenting: how the file was cut: "whole", "10s", "scenes".
        segments: of the whole file.
        duration: of the whole file, in seconds.
        start, end: of the segment, in seconds.
        times: (F,) when each frame is shown, in seconds.
        thumbnail: a JPEG.
        mean: (d,) the frames' mean-pooled embedding, of length 1.
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
        """Names the segment by content and place, so that it says what the embeddings are of, wherever the file is."""
        return segment_id(self.video, self.start, self.end)


@dataclass(frozen=True)
class FileRow:
    """A file without segments of its own: one that failed, or a copy of another.

    Attributes:
        path: the file.
        size, mtime: the file's when it was tried, in bytes and nanoseconds; zeros where even that is unknown.
        video: see `SegmentRow`; empty where the file could not be read.
        segmenting: how it was to be cut.
        status: FAILED or DUPLICATE.
        reason: a sentence, for people.
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
        """Names the file by its path."""
        return file_id(self.path)


def segment_id(video: str, start: float, end: float) -> str:
    """The id of a segment, in milliseconds: ids of one video sort by time."""
    return f"{video}-{round(start * 1000):010d}-{round(end * 1000):010d}"


def file_id(path: bytes) -> str:
    """The id of a file that has no segments of its own."""
    return f"file-{hashlib.sha256(path).hexdigest()[:20]}"


def table_schema(encoder: str, dim: int, frames: int, fingerprint: Sequence[float]) -> pa.Schema:
    """The table's columns, and what made it as metadata."""
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
    """Rows as Arrow sees them."""
    arrays = [_column(field, [getattr(row, field.name, None) for row in rows]) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    """One column; vectors go in as one array, not number by number."""
    if not pa.types.is_fixed_size_list(field.type):
        return pa.array(values, field.type)
    size, kind = field.type.list_size, field.type.value_type.to_pandas_dtype()
    empty = np.zeros(size, kind)
    whole = np.concatenate([empty if value is None else np.ravel(value).astype(kind) for value in values])
    absent = pa.array([value is None for value in values])
    return pa.FixedSizeListArray.from_arrays(pa.array(whole), type=field.type, mask=absent)

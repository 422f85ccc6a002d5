"""The store of embedded videos: one LanceDB table per encoder, in a folder or on object storage.

LanceDB writes every change atomically as a new version, so a killed process leaves the previous version. Ids are a
primary key: if two processes add the same files at the same time, each row is stored once.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dits.common.errors import IndexStoreError, InputError
from dits.corpora.corpus import FRAMES
from dits.encoders.openclip import FINGERPRINT_SENTENCE, Encoder
from dits.index.schema import DUPLICATE, FAILED, FORMAT, ID, MISSING, OK, FileRow, SegmentRow, as_table, table_schema
from dits.index.store_errors import store_errors

if TYPE_CHECKING:
    from lancedb.table import Table

_VERSION_LIFETIME = timedelta(hours=1)  # enough for readers of an old version to finish
_FRAGMENTS_TO_COMPACT = 16
_ROWS_PER_PARTITION, _SAMPLES_PER_PARTITION = 50_000, 256
_FINGERPRINT_TOLERANCE = 0.01
_SOURCES = "sources"
_SOURCES_SCHEMA = pa.schema([ID, ("path", pa.binary()), ("segmenting", pa.string())])


@dataclass(frozen=True)
class FileRecord:
    """A file of the index. For the attributes without an entry here, see `SegmentRow`.

    Attributes:
        status: "ok", "failed", "duplicate" or "missing".
        reason: of a failure or a duplicate.
        complete: whether all segments of its content are stored, and none of other content. False after an
            interruption.
    """

    path: bytes
    size: int
    mtime: int
    video: str
    segmenting: str
    status: str
    reason: str
    complete: bool


class VideoIndex:
    """The embedded videos of an index for one encoder. Several processes may write to it at the same time."""

    def __init__(self, location: str, table: "Table", sources: "Table") -> None:
        self.location = location
        self._table, self._sources = table, sources
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        self.encoder = metadata["dits.encoder"]
        self.frames = int(metadata["dits.frames"])
        self.dim: int = table.schema.field("mean").type.list_size
        self.identity = metadata.get("dits.table", "")  # an index that is removed and made again has another
        self.fingerprint = [float(value) for value in metadata["dits.fingerprint"].split()]
        self._is_pinned = False

    @classmethod
    def create(cls, location: str, encoder: Encoder) -> "VideoIndex":
        """Opens the index for an encoder; makes it if it does not exist.

        Raises:
            IndexStoreError: the location cannot be written, or `open` fails.
        """
        fingerprint = encoder.encode_text([FINGERPRINT_SENTENCE])[0, :8].tolist()
        schema = table_schema(encoder.id, encoder.dim, FRAMES, fingerprint)
        with store_errors(location):
            connection = _connection(location)
            for name, columns in ((_table_name(encoder.id), schema), (_SOURCES, _SOURCES_SCHEMA)):
                if name not in _names(connection):
                    _make_table(connection, name, columns)
        return cls.open(location, encoder)

    @classmethod
    def open(cls, location: str, encoder: Encoder) -> "VideoIndex":
        """Opens the index for an encoder.

        Raises:
            IndexStoreError: there is no index, it is damaged or of a newer format, or its encoder's weights differ.
        """
        index = cls.open_at(location, encoder.id)
        index._check_fingerprint(encoder)
        return index

    @classmethod
    def open_at(cls, location: str, encoder: str, version: int | None = None) -> "VideoIndex":
        """Opens the index for an encoder id, without comparing the encoder's weights: for callers that do not embed.

        Args:
            version: reads this version of the index (see `version`); by default always the latest.

        Raises:
            IndexStoreError: there is no index, it is damaged or of a newer format, or the version was removed.
        """
        with store_errors(location):
            connection = _connection(location)
            names = _names(connection)
            table = _table_name(encoder)
            if table not in names:
                others = [name for name in names if name != _SOURCES]
                raise IndexStoreError(
                    f"The index {location} holds no videos embedded by {encoder}"
                    + (f", only by {', '.join(others)}: choose that --encoder, or" if others else ":")
                    + " add videos with `python -m dits index add`."
                )
            opened = connection.open_table(table)
            _check_format(location, opened)
            index = cls(location, opened, connection.open_table(_SOURCES))
            if version is not None:
                opened.checkout(version)
                index._is_pinned = True
        return index

    @property
    def version(self) -> int:
        """The number of the latest version; every change increases it."""
        with store_errors(self.location):
            return self._latest().version

    def files(self) -> dict[bytes, FileRecord]:
        """All files of the index, by path."""
        names = ["size", "mtime", "video", "segmenting", "status", "reason"]
        rows = self.rows(["id", "path", *names, "segments"], None).drop_columns(["id"])
        firsts = [(name, "first") for name in (*names, "segments")]
        files = rows.group_by("path", use_threads=False).aggregate(
            [*firsts, ("path", "count"), ("video", "count_distinct")]
        )
        return {
            row["path"]: FileRecord(
                path=row["path"],
                complete=row["video_count_distinct"] == 1 and row["path_count"] >= (row["segments_first"] or 1),
                **{name: row[f"{name}_first"] for name in names},
            )
            for row in files.to_pylist()
        }

    def rows(self, columns: Sequence[str], status: str | None = OK) -> pa.Table:
        """Columns of the rows with one status, or of all rows, sorted by id if `columns` has it."""
        table = self._read(self._select(columns, f"status = '{status}'" if status else None))
        return table.sort_by("id") if "id" in columns else table

    def batches(
        self, columns: Sequence[str], ends: tuple[str, str] | None = None, rows: int = 2048
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the searchable rows, in no particular order, in blocks.

        Args:
            ends: the first and the last id to read; by default all rows are read.
        """
        in_range = f" AND id >= '{ends[0]}' AND id <= '{ends[1]}'" if ends else ""
        query = self._select(columns, f"status = '{OK}'{in_range}")
        with store_errors(self.location):
            yield from query.to_batches(rows)

    def batches_with(self, ids: Sequence[str], columns: Sequence[str], rows: int = 2048) -> Iterator[pa.RecordBatch]:
        """Columns of the searchable rows with the given ids, in any order. For many ids, other rows are returned too.

        Args:
            ids: in ascending order.
        """
        if len(ids) > _MIN_SHARE_TO_SCAN * self._latest().count_rows():
            yield from self.batches(columns, (ids[0], ids[-1]), rows)
            return
        for block in _id_blocks(ids):
            query = self._select(columns, f"status = '{OK}' AND {block}")
            with store_errors(self.location):
                yield from query.to_batches(rows)

    def segments_of(self, video: str) -> set[str]:
        """The ids of the stored segments of a video."""
        rows = self._read(self._select(["id"], f"video = '{video}' AND start IS NOT NULL"))
        return set(rows["id"].to_pylist())

    def make_vector_index(self) -> None:
        """Makes or replaces the vector index of mean embeddings for `nearest`, with one bit per dimension (RaBitQ).

        `nearest` probes all partitions; they only divide the work between cores. Because of the modality gap, the
        partitions near a text need not hold its best videos: on 100,000 synthetic segments a tenth of the partitions
        held 88 % of the ten best. Comparing the codes of all segments is fast.
        """
        from lancedb.index import IvfRq

        config = IvfRq(distance_type="cosine", num_partitions=self._partitions(), sample_rate=_SAMPLES_PER_PARTITION)
        with store_errors(self.location):
            self._latest().create_index("mean", config=config, replace=True)

    def _partitions(self) -> int:
        return math.ceil(max(1, self._table.count_rows()) / _ROWS_PER_PARTITION)

    @property
    def has_vector_index(self) -> bool:
        """Whether `nearest` uses a vector index instead of comparing with every row."""
        with store_errors(self.location):
            return any("mean" in index.columns for index in self._latest().list_indices())

    def nearest(self, vector: np.ndarray, count: int) -> np.ndarray:
        """Row ids (see `row_ids`) of the segments whose mean embeddings are nearest to a vector (d,) by cosine, nearest
        first.

        Segments of missing files are included: filtering by status takes longer than the search. With a vector index,
        distances are estimates; rows that were added after it was made are compared exactly.
        """
        with store_errors(self.location):
            query = self._table.search(vector.astype(np.float16), vector_column_name="mean").distance_type("cosine")
            query = query.select(["_distance"]).with_row_id(True).nprobes(self._partitions()).limit(count)
            return query.to_arrow()["_rowid"].to_numpy()

    def row_ids(self) -> tuple[np.ndarray, list[str]]:
        """LanceDB's row ids of all searchable rows, and the segments' ids. A new version may change the row ids."""
        table = self._read(self._select(["id"], f"status = '{OK}'").with_row_id(True))
        return table["_rowid"].to_numpy(), table["id"].to_pylist()

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """JPEG thumbnails of segments, by id."""
        rows = self._read(self._select(["id", "thumbnail"], _in("id", ids)))
        return {row["id"]: row["thumbnail"] for row in rows.to_pylist() if row["thumbnail"]}

    def write(self, rows: Sequence[SegmentRow | FileRow]) -> None:
        """Stores rows in one atomic step. Rows with the same ids are replaced."""
        if not rows:
            return
        data = as_table(list({row.id: row for row in rows}.values()), self._table.schema)
        with store_errors(self.location):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(data, on_bad_vectors="null")  # files without segments have no vectors

    def forget(self, paths: Iterable[bytes], keep: Iterable[str] = ()) -> None:
        """Removes all rows of some files, except the ids in `keep`."""
        keep = set(keep)
        self._for_each_block([row for row in self._ids_of(paths, None) if row not in keep], self._table.delete)

    def mark(self, paths: Iterable[bytes], before: str, after: str) -> int:
        """Changes the status of the rows of some files; returns the number of files changed."""
        rows = self._ids_of(paths, before)
        self._for_each_block(list(rows), lambda where: self._table.update(where=where, values={"status": after}))
        return len(set(rows.values()))

    def move(self, video: str, path: bytes, size: int, mtime: int) -> None:
        """Sets the file of a video whose segments are all stored, and marks them as searchable."""
        rows = {"path": f"X'{path.hex()}'", "size": str(size), "mtime": str(mtime), "status": f"'{OK}'"}
        with store_errors(self.location):
            self._table.update(where=f"video = '{video}' AND start IS NOT NULL", values_sql=rows)

    def remember_source(self, path: bytes, segmenting: str) -> None:
        """Stores a file or folder that was added, for `update_index`."""
        row = {"id": f"{self.encoder}:{path.hex()}", "path": path, "segmenting": segmenting}
        with store_errors(self.location):
            merge = self._sources.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.Table.from_pylist([row], schema=self._sources.schema))

    def sources(self) -> list[tuple[bytes, str]]:
        """The paths that were added, and how their files are cut."""
        with store_errors(self.location):
            self._sources.checkout_latest()
            rows = self._sources.search().limit(_ALL).to_list()
        own = [row for row in rows if row["id"].startswith(f"{self.encoder}:")]
        return [(row["path"], row["segmenting"]) for row in sorted(own, key=lambda row: row["path"])]

    def forget_sources(self, paths: Iterable[bytes]) -> None:
        """Removes paths that `remember_source` stored."""
        ids = [f"{self.encoder}:{path.hex()}" for path in paths]
        with store_errors(self.location):
            if ids:
                self._sources.delete(_in("id", ids))

    def compact(self, always: bool = False) -> None:
        """Merges the small files that many changes leave, and removes the files of old versions."""
        with store_errors(self.location):
            stats: Any = self._table.stats()
            if always or stats["fragment_stats"]["num_fragments"] >= _FRAGMENTS_TO_COMPACT:
                # A conflict with another process is harmless: a later call compacts.
                with suppress(RuntimeError):
                    self._table.optimize(cleanup_older_than=_VERSION_LIFETIME)

    def counts(self) -> dict[str, int]:
        """The numbers of searchable videos and segments, and of failed, duplicate and missing files."""
        rows = self.rows(["id", "video", "path", "status"], None)
        searchable = rows.filter(pc.field("status") == OK)
        paths = {s: set(rows.filter(pc.field("status") == s)["path"].to_pylist()) for s in (FAILED, DUPLICATE, MISSING)}
        return {
            "videos": len(pc.unique(searchable["video"])),
            "segments": len(searchable),
            **{status: len(names) for status, names in paths.items()},
        }

    def _latest(self) -> "Table":
        if not self._is_pinned:
            with store_errors(self.location):
                self._table.checkout_latest()
        return self._table

    def _select(self, columns: Sequence[str], where: str | None) -> Any:
        query = self._latest().search().select(list(columns)).limit(_ALL)
        return query.where(where) if where else query

    def _read(self, query: Any) -> pa.Table:
        with store_errors(self.location):
            return query.to_arrow()

    def _ids_of(self, paths: Iterable[bytes], status: str | None) -> dict[str, bytes]:
        """The ids of the rows of some files, with the paths."""
        wanted = set(paths)
        if not wanted:
            return {}
        rows = self.rows(["id", "path"], status)
        pairs = zip(rows["id"].to_pylist(), rows["path"].to_pylist(), strict=True)
        return {row: path for row, path in pairs if path in wanted}

    def _for_each_block(self, ids: Sequence[str], change: Callable[[str], Any]) -> None:
        with store_errors(self.location):
            for block in _id_blocks(ids):
                change(block)

    def _check_fingerprint(self, encoder: Encoder) -> None:
        own = encoder.encode_text([FINGERPRINT_SENTENCE])[0, :8].tolist()
        scale = max(map(abs, self.fingerprint), default=1.0)
        if any(abs(a - b) > _FINGERPRINT_TOLERANCE * scale for a, b in zip(own, self.fingerprint, strict=True)):
            raise IndexStoreError(
                f"The index {self.location} was made with other weights of the encoder {encoder.id}: choose the "
                "encoder that made it, or make a new index with --index DIR."
            )


_ALL = 2**31 - 1  # LanceDB returns ten rows by default
_MAX_IDS_PER_QUERY = 1000
_MIN_SHARE_TO_SCAN = 0.05  # of the rows: above it, reading all rows is faster than looking up ids


def _connection(location: str) -> Any:
    import lancedb

    return lancedb.connect(location if "://" in location else os.path.expanduser(location))


def _make_table(connection: Any, name: str, columns: pa.Schema) -> None:
    """Makes a table. If that fails, its remains are removed: they would look like a damaged index."""
    try:
        with suppress(ValueError):  # another process has made it
            connection.create_table(name, schema=columns)
    except Exception:
        try:
            connection.open_table(name)
        except Exception:
            with suppress(Exception):
                connection.drop_table(name)
        raise


def _names(connection: Any) -> list[str]:
    return list(connection.list_tables().tables)


def _table_name(encoder: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", encoder)


def _check_format(location: str, table: "Table") -> None:
    metadata = table.schema.metadata or {}
    version = metadata.get(b"dits.format", b"").decode()
    if not version.isdigit() or not metadata.keys() >= {b"dits.encoder", b"dits.frames", b"dits.fingerprint"}:
        raise IndexStoreError(f"{location} is not an index of videos of this project: name another with --index DIR.")
    if int(version) > FORMAT:
        raise IndexStoreError(
            f"The index {location} has format {version}, newer than this version reads ({FORMAT}): update the program, "
            "or make a new index with --index DIR."
        )


def _in(column: str, values: Sequence[str]) -> str:
    if any("'" in value for value in values):
        raise InputError("An id contains a quote.")
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _id_blocks(ids: Sequence[str]) -> Iterator[str]:
    """Conditions that select rows by id, each for at most `_MAX_IDS_PER_QUERY` ids."""
    for start in range(0, len(ids), _MAX_IDS_PER_QUERY):
        yield _in("id", ids[start : start + _MAX_IDS_PER_QUERY])

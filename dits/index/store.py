"""The store of embedded videos: one LanceDB table per encoder, in a folder or on object storage.

LanceDB writes every change as a new version, whole or not at all, so a process that is killed leaves the version before
it. Ids are a primary key: two processes that add the same files at the same time store them once.
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

_KEPT_VERSIONS = timedelta(hours=1)  # whoever reads an older version now has had time to finish
_FRAGMENTS_TO_COMPACT = 16
_ROWS_A_PARTITION, _SAMPLES_A_PARTITION = 50_000, 256
_FINGERPRINT_TOLERANCE = 0.01
_SOURCES = "sources"
_SOURCES_SCHEMA = pa.schema([ID, ("path", pa.binary()), ("segmenting", pa.string())])


@dataclass(frozen=True)
class FileRecord:
    """What the index knows of a file.

    Attributes:
        size, mtime: the file's when it was read, in bytes and nanoseconds.
        video: names its content.
        segmenting: how it was cut.
        status: "ok", "failed", "duplicate" or "missing".
        reason: of a failure or a duplicate.
        complete: whether all segments of its content, and none of another, are stored; what was interrupted is not.
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
    """The embedded videos of an index under one encoder. Several processes may write to it at the same time."""

    def __init__(self, location: str, table: "Table", sources: "Table") -> None:
        self.location = location
        self._table, self._sources = table, sources
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        self.encoder = metadata["dits.encoder"]
        self.frames = int(metadata["dits.frames"])
        self.dim: int = table.schema.field("mean").type.list_size
        self.identity = metadata.get("dits.table", "")  # differs where an index is removed and made anew
        self.fingerprint = [float(value) for value in metadata["dits.fingerprint"].split()]
        self._is_old = False

    @classmethod
    def create(cls, location: str, encoder: Encoder) -> "VideoIndex":
        """The index under an encoder, made where it is not there yet.

        Raises:
            IndexStoreError: the place cannot be written, or holds what is no index of this version and encoder.
        """
        schema = table_schema(
            encoder.id, encoder.dim, FRAMES, encoder.encode_text([FINGERPRINT_SENTENCE])[0, :8].tolist()
        )
        with store_errors(location):
            connection = _connection(location)
            for name, columns in ((_table_name(encoder.id), schema), (_SOURCES, _SOURCES_SCHEMA)):
                if name not in _names(connection):
                    _make_table(connection, name, columns)
        return cls.open(location, encoder)

    @classmethod
    def open(cls, location: str, encoder: Encoder) -> "VideoIndex":
        """The index under an encoder.

        Raises:
            IndexStoreError: there is none, it is damaged, of a newer version, or its encoder's weights differ.
        """
        index = cls.open_at(location, encoder.id)
        index._check_fingerprint(encoder)
        return index

    @classmethod
    def open_at(cls, location: str, encoder: str, version: int | None = None) -> "VideoIndex":
        """The index under an encoder of that id, whose weights are not compared: for whoever embeds nothing.

        Args:
            version: what is read is what the index held then (see `version`); by default what it holds.

        Raises:
            IndexStoreError: there is none, it is damaged, of a newer version, or the version is kept no longer.
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
                index._is_old = True
        return index

    @property
    def version(self) -> int:
        """Counts the changes."""
        with store_errors(self.location):
            return self._latest().version

    def files(self) -> dict[bytes, FileRecord]:
        """Every file that the index knows, by its path."""
        columns = ["path", "size", "mtime", "video", "segmenting", "status", "reason", "segments"]
        rows = self.rows(["id", *columns], None).drop_columns(["id"])
        firsts = [(name, "first") for name in columns[1:]]
        files = rows.group_by("path", use_threads=False).aggregate(
            [*firsts, ("path", "count"), ("video", "count_distinct")]
        )
        return {
            row["path"]: FileRecord(
                path=row["path"],
                size=row["size_first"],
                mtime=row["mtime_first"],
                video=row["video_first"],
                segmenting=row["segmenting_first"],
                status=row["status_first"],
                reason=row["reason_first"],
                complete=row["video_count_distinct"] == 1 and row["path_count"] >= (row["segments_first"] or 1),
            )
            for row in files.to_pylist()
        }

    def rows(self, columns: Sequence[str], status: str | None = OK) -> pa.Table:
        """Columns of the rows of one status, or of all, in the order of their ids."""
        query = self._latest().search().select(list(columns)).limit(_ALL)
        with store_errors(self.location):
            table = (query.where(f"status = '{status}'") if status else query).to_arrow()
        return table.sort_by("id") if "id" in columns else table

    def batches(
        self, columns: Sequence[str], ends: tuple[str, str] | None = None, rows: int = 2048
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the rows that can be searched, in no particular order, a block at a time.

        Args:
            ends: the first and the last id that are wanted; by default all are.
        """
        among = f" AND id >= '{ends[0]}' AND id <= '{ends[1]}'" if ends else ""
        query = self._latest().search().select(list(columns)).where(f"status = '{OK}'{among}").limit(_ALL)
        with store_errors(self.location):
            yield from query.to_batches(rows)

    def batches_with(self, ids: Sequence[str], columns: Sequence[str], rows: int = 2048) -> Iterator[pa.RecordBatch]:
        """Columns of the rows of some ids that can be searched, in no particular order; with rows of others, if many.

        Args:
            ids: ascending.
        """
        if len(ids) > _SHARE_TO_SCAN * self._latest().count_rows():
            yield from self.batches(columns, (ids[0], ids[-1]), rows)
            return
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = _among("id", ids[start : start + _IDS_AT_ONCE])
            query = self._latest().search().select(list(columns)).where(f"status = '{OK}' AND {some}").limit(_ALL)
            with store_errors(self.location):
                yield from query.to_batches(rows)

    def segments_of(self, video: str) -> set[str]:
        """The ids of a video's stored segments."""
        query = self._latest().search().select(["id"]).where(f"video = '{video}' AND start IS NOT NULL").limit(_ALL)
        with store_errors(self.location):
            return set(query.to_arrow()["id"].to_pylist())

    def make_vector_index(self) -> None:
        """Makes the index of mean embeddings that `nearest` looks up, or makes it anew: a bit a dimension (RaBitQ).

        `nearest` looks at all of its partitions, which only share the work between cores. Texts lie apart from videos,
        so partitions near a text are not where its best videos are: on 100,000 synthetic segments a tenth of them held
        88 % of the ten best, while the codes of all segments are compared in little time.
        """
        from lancedb.index import IvfRq

        config = IvfRq(distance_type="cosine", num_partitions=self._partitions(), sample_rate=_SAMPLES_A_PARTITION)
        with store_errors(self.location):
            self._latest().create_index("mean", config=config, replace=True)

    def _partitions(self) -> int:
        return math.ceil(max(1, self._table.count_rows()) / _ROWS_A_PARTITION)

    @property
    def has_vector_index(self) -> bool:
        """Whether `nearest` looks up an index, instead of comparing with every row."""
        with store_errors(self.location):
            return any("mean" in index.columns for index in self._latest().list_indices())

    def nearest(self, vector: np.ndarray, count: int) -> np.ndarray:
        """The places in the table, as `places` has them, of the segments whose mean embeddings are nearest to a vector
        (d,) by cosine, nearest first.

        Segments of files that are gone are among them: to ask for a status takes longer than the search. With a vector
        index, distances are estimates; rows that were added since it was made are compared exactly.
        """
        with store_errors(self.location):
            query = self._table.search(vector.astype(np.float16), vector_column_name="mean").distance_type("cosine")
            query = query.select(["_distance"]).with_row_id(True).nprobes(self._partitions()).limit(count)
            return query.to_arrow()["_rowid"].to_numpy()

    def places(self) -> tuple[np.ndarray, list[str]]:
        """The places in the table of all rows that can be searched, and their ids. A new version moves rows."""
        query = self._latest().search().select(["id"]).where(f"status = '{OK}'").with_row_id(True).limit(_ALL)
        with store_errors(self.location):
            table = query.to_arrow()
        return table["_rowid"].to_numpy(), table["id"].to_pylist()

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """JPEG pictures of segments, by their ids."""
        query = self._latest().search().select(["id", "thumbnail"]).where(_among("id", ids)).limit(_ALL)
        with store_errors(self.location):
            return {row["id"]: row["thumbnail"] for row in query.to_list() if row["thumbnail"]}

    def write(self, rows: Sequence[SegmentRow | FileRow]) -> None:
        """Stores rows in one step. Rows of the same ids are replaced."""
        if not rows:
            return
        data = as_table(list({row.id: row for row in rows}.values()), self._table.schema)
        with store_errors(self.location):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(data, on_bad_vectors="null")  # a file without segments has none

    def forget(self, paths: Iterable[bytes], keep: Iterable[str] = ()) -> None:
        """Removes all rows of files, but those of the ids in `keep`."""
        kept = set(keep)
        self._each_block([row for row in self._rows_of(paths, None) if row not in kept], self._table.delete)

    def mark(self, paths: Iterable[bytes], before: str, after: str) -> int:
        """Changes the status of the rows of files; of how many files."""
        found = self._rows_of(paths, before)
        self._each_block(list(found), lambda where: self._table.update(where=where, values={"status": after}))
        return len(set(found.values()))

    def move(self, video: str, path: bytes, size: int, mtime: int) -> None:
        """Says where a video's file is now, of which all segments are stored."""
        rows = {"path": _binary(path), "size": str(size), "mtime": str(mtime), "status": f"'{OK}'"}
        with store_errors(self.location):
            self._table.update(where=f"video = '{video}' AND start IS NOT NULL", values_sql=rows)

    def remember_source(self, path: bytes, segmenting: str) -> None:
        """Notes a file or folder that was added, for `update` to look at again."""
        row = {"id": f"{self.encoder}:{path.hex()}", "path": path, "segmenting": segmenting}
        with store_errors(self.location):
            merge = self._sources.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.Table.from_pylist([row], schema=self._sources.schema))

    def sources(self) -> list[tuple[bytes, str]]:
        """What was added: paths, and how their files are cut."""
        with store_errors(self.location):
            self._sources.checkout_latest()
            rows = self._sources.search().limit(_ALL).to_list()
        own = [row for row in rows if row["id"].startswith(f"{self.encoder}:")]
        return [(row["path"], row["segmenting"]) for row in sorted(own, key=lambda row: row["path"])]

    def forget_sources(self, paths: Iterable[bytes]) -> None:
        """The opposite of `remember_source`."""
        ids = [f"{self.encoder}:{path.hex()}" for path in paths]
        with store_errors(self.location):
            if ids:
                self._sources.delete(_among("id", ids))

    def compact(self, always: bool = False) -> None:
        """Merges the small files that many small changes leave, and removes those of old versions."""
        with store_errors(self.location):
            stats: Any = self._table.stats()
            if always or stats["fragment_stats"]["num_fragments"] >= _FRAGMENTS_TO_COMPACT:
                # Another process's change may be in its way, which is no harm: the next one does it.
                with suppress(RuntimeError):
                    self._table.optimize(cleanup_older_than=_KEPT_VERSIONS)

    def counts(self) -> dict[str, int]:
        """How many videos and segments can be searched, and how many files failed, are copies, or are gone."""
        rows = self.rows(["id", "video", "path", "status"], None)
        found = rows.filter(pc.field("status") == OK)
        paths = {s: set(rows.filter(pc.field("status") == s)["path"].to_pylist()) for s in (FAILED, DUPLICATE, MISSING)}
        return {
            "videos": len(pc.unique(found["video"])),
            "segments": len(found),
            **{status: len(names) for status, names in paths.items()},
        }

    def _latest(self) -> "Table":
        if not self._is_old:
            with store_errors(self.location):
                self._table.checkout_latest()
        return self._table

    def _rows_of(self, paths: Iterable[bytes], status: str | None) -> dict[str, bytes]:
        """The ids of the rows of files, with their paths."""
        wanted = set(paths)
        if not wanted:
            return {}
        rows = self.rows(["id", "path"], status)
        pairs = zip(rows["id"].to_pylist(), rows["path"].to_pylist(), strict=True)
        return {row: path for row, path in pairs if path in wanted}

    def _each_block(self, ids: Sequence[str], change: Callable[[str], Any]) -> None:
        with store_errors(self.location):
            for start in range(0, len(ids), _IDS_AT_ONCE):
                change(_among("id", ids[start : start + _IDS_AT_ONCE]))

    def _check_fingerprint(self, encoder: Encoder) -> None:
        own = encoder.encode_text([FINGERPRINT_SENTENCE])[0, :8].tolist()
        scale = max(map(abs, self.fingerprint), default=1.0)
        if any(abs(a - b) > _FINGERPRINT_TOLERANCE * scale for a, b in zip(own, self.fingerprint, strict=True)):
            raise IndexStoreError(
                f"The index {self.location} was made by other weights of the encoder {encoder.id}: choose the encoder "
                "that made it, or make a new index with --index DIR."
            )


_ALL = 2**31 - 1  # LanceDB returns ten rows unless told otherwise
_IDS_AT_ONCE = 1000
_SHARE_TO_SCAN = 0.05  # of the rows: to read all and keep some is faster than to look more up


def _connection(location: str) -> Any:
    import lancedb

    return lancedb.connect(location if "://" in location else os.path.expanduser(location))


def _make_table(connection: Any, name: str, columns: pa.Schema) -> None:
    """Makes a table, whole or not at all: what a full disk leaves of one would pass for a damaged index."""
    try:
        with suppress(ValueError):  # another process was faster
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
    found = metadata.get(b"dits.format", b"").decode()
    if not found.isdigit() or not metadata.keys() >= {b"dits.encoder", b"dits.frames", b"dits.fingerprint"}:
        raise IndexStoreError(f"{location} is no index of videos of this project: name another with --index DIR.")
    if int(found) > FORMAT:
        raise IndexStoreError(
            f"The index {location} is of format {found}, newer than this version reads ({FORMAT}): update the program, "
            "or make a new index with --index DIR."
        )


def _among(column: str, values: Sequence[str]) -> str:
    if any("'" in value for value in values):
        raise InputError("An id holds a quote.")
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _binary(value: bytes) -> str:
    return f"X'{value.hex()}'"

"""Staged Parquet files of parsed rows, in buckets by their key, so that equal rows meet in one bucket."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gur_spark import storage

GROUP_ROWS, GROUP_BYTES = 1_000_000, 64 << 20
"""Rows, or bytes, that are held before they are written."""

WRITTEN_ROWS = 1 << 20
"""Most rows of a row group."""

FILE = "number of file"
"""Column of staged rows with the position of their file. No field has such a name."""


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Buckets of rows by a hash of their key."""

    key: Sequence[str]
    count: int
    level: int = 0
    """Another level spreads the rows of one bucket over all buckets."""

    def split(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """Number and rows of each bucket that has some, in order; rows of one bucket keep their order."""
        if self.count == 1:
            yield 0, rows
            return
        bucket_N = (self._hashes(rows) % np.uint64(self.count)).astype(np.int64)
        ordered = rows.take(pa.array(np.argsort(bucket_N, kind="stable")))
        ends = np.cumsum(np.bincount(bucket_N, minlength=self.count))
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                yield number, ordered.slice(start, end - start)

    def _hashes(self, rows: pa.Table) -> Any:
        """A hash of each row's key, (N,) uint64; equal keys have equal hashes in all processes."""
        hash_N = np.zeros(len(rows), np.uint64)
        for name in self.key:
            hash_N = _mixed(hash_N ^ _numbers(rows[name].combine_chunks()))
        # The level comes last, so that the rows of one bucket part again.
        return _mixed(hash_N + np.uint64(self.level))


def _mixed(hash_N: Any) -> Any:
    """The hashes with each bit in many others (the finaliser of SplitMix64: Steele et al. 2014)."""
    hash_N = (hash_N ^ (hash_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hash_N = (hash_N ^ (hash_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hash_N ^ (hash_N >> np.uint64(31))


def _numbers(values: pa.Array) -> Any:
    """A number for each value, equal for equal values, (N,) uint64."""
    if pa.types.is_string(values.type):
        encoded = values.dictionary_encode()
        of_text = np.array([crc32(text.encode()) for text in encoded.dictionary.to_pylist()] + [0], np.uint64)
        return of_text[pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy()]
    whole = pc.fill_null(values.cast(pa.int32()) if pa.types.is_date(values.type) else values.cast(pa.int64()), 0)
    return whole.to_numpy().astype(np.int64).view(np.uint64)


@dataclass(frozen=True, kw_only=True)
class StagedFile:
    """A Parquet file of rows in buckets."""

    path: str
    buckets: Sequence[int]
    """The bucket of each row group."""
    sizes: Sequence[int]
    """Bytes that each row group takes in memory."""

    def only(self, bucket: int) -> "Part | None":
        """The row groups of a bucket; None where it has no row."""
        groups = [number for number, one in enumerate(self.buckets) if one == bucket]
        return Part(self.path, groups, sum(self.sizes[number] for number in groups)) if groups else None


@dataclass(frozen=True)
class Part:
    """Some row groups of a file."""

    path: str
    groups: Sequence[int]
    size: int
    """Bytes that they take in memory."""

    def read(self) -> pa.Table:
        """All rows."""
        with self._opened() as file:
            return file.read_row_groups(self.groups, use_threads=False)

    def blocks(self) -> Iterator[pa.Table]:
        """All rows, one row group at a time."""
        with self._opened() as file:
            for number in self.groups:
                yield file.read_row_group(number, use_threads=False)

    def _opened(self) -> pq.ParquetFile:
        filesystem, inner = storage.open_filesystem(self.path)
        return pq.ParquetFile(inner, filesystem=filesystem)


class StagedWriter:
    """Writes rows of one task to a file in a folder. Without rows there is no file."""

    def __init__(self, folder: str, buckets: Buckets | None = None) -> None:
        self._folder, self._buckets = folder, buckets
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.Table] = []
        # Counted as they come: a task may hold the rows of thousands of small files.
        self._held_rows = self._held_bytes = 0
        self._path = ""
        self._groups: list[int] = []
        self._sizes: list[int] = []

    def add(self, rows: pa.Table) -> None:
        """Write rows, or hold them until there are enough for a row group."""
        if not len(rows):
            return
        self._held.append(rows)
        self._held_rows += len(rows)
        self._held_bytes += rows.nbytes
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> StagedFile | None:
        """Write what is held; returns the file, if there is one."""
        if self._held:
            self._flush()
        if self._writer is None:
            return None
        self._writer.close()
        return StagedFile(path=self._path, buckets=self._groups, sizes=self._sizes)

    def _flush(self) -> None:
        rows = pa.concat_tables(self._held)
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        if self._writer is None:
            # A second attempt of the task must not write to the file of the first.
            self._path = storage.join(self._folder, f"{uuid4().hex}.parquet")
            storage.create_folder(self._folder)
            filesystem, inner = storage.open_filesystem(self._path)
            # Numbers of a log seldom repeat, and nobody asks for the statistics of a staged file.
            texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]
            options = {"compression": "snappy", "use_dictionary": texts, "write_statistics": False}
            self._writer = pq.ParquetWriter(inner, rows.schema, filesystem=filesystem, **options)
        for number, part in self._buckets.split(rows) if self._buckets else [(0, rows)]:
            self._writer.write_table(part, row_group_size=WRITTEN_ROWS)
            for start in range(0, len(part), WRITTEN_ROWS):
                self._groups.append(number)
                self._sizes.append(part.slice(start, WRITTEN_ROWS).nbytes)

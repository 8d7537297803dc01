"""Rows of one key among those of a run: workers keep one of each, bucket by bucket."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from gur_spark import storage
from gur_spark.config.logs import AnyLog, RawLog
from gur_spark.config.source import Source
from gur_spark.events.files import File
from gur_spark.events.ranges import COMPRESSED
from gur_spark.events.staged_files import FILE, Buckets, Part, StagedFile, StagedWriter

BUCKET_BYTES = 64 << 20
"""Bytes of a log's text in a bucket, about."""

BUCKET_MEMORY = 512 << 20
"""A bucket that takes more bytes in memory is split again before it is read."""

MOST_BUCKETS = 256
SPLIT = 16
"""Parts of a bucket that is split."""

MOST_LEVELS = 4
"""Rows that are in one bucket after so many splits have one key."""

PACKED = 6
"""Bytes of text for a byte of a compressed or typed file, about."""


@dataclass(frozen=True)
class Unique:
    """Parquet files with one row of each key, and their number of rows."""

    files: Sequence[str]
    rows: int


def buckets_for(files: Sequence[File], source: Source) -> int:
    """Number of buckets for the rows of some files."""
    packed = source.format not in ("csv", "jsonl")
    size = sum(f.length * (PACKED if packed or f.path.endswith(COMPRESSED) else 1) for f in files)
    return min(max(1, -(-size // BUCKET_BYTES)), MOST_BUCKETS)


def buckets_of(log: AnyLog, count: int) -> Buckets | None:
    """Buckets for the rows of a log; None where it keeps duplicates."""
    return None if log.dedupe.policy == "none" else Buckets(key=key_of(log, log.columns), count=count)


def key_of(log: RawLog, columns: Sequence[str]) -> list[str]:
    """The columns, among those of the log's rows, whose equal values make two rows the same event."""
    return log.dedupe.key or [name for name in columns if name != "landed_on"]


def unique_rows(
    spark: SparkSession,
    staged: Sequence[StagedFile],
    log: RawLog,
    buckets: Buckets,
    left_out: Sequence[int],
    folder: str,
) -> Unique:
    """Write one row of each key below a folder.

    Among rows with one key, the row of the first landing stays, and then the least one by its columns in order. With
    ``keep: last`` the greatest one stays, compared by ``order`` first.

    Args:
        left_out: numbers of files whose rows do not count.
    """
    if not staged:
        return Unique((), 0)
    folder = storage.join(folder, "unique")

    parts = [[part for file in staged if (part := file.only(bucket))] for bucket in range(buckets.count)]

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for bucket in batch.column(0).to_pylist():
                made = _settle(parts[bucket], log, buckets, left_out, folder)
                yield pa.RecordBatch.from_arrays([pa.array([json.dumps(made)])], names=["report"])

    if buckets.count == 1:
        # So few rows need no worker.
        return Unique(*_settle(parts[0], log, buckets, left_out, folder))
    rows = spark.range(0, buckets.count, 1, buckets.count).mapInArrow(kernel, "report STRING").collect()
    made = [json.loads(row["report"]) for row in rows]
    return Unique(sorted(path for paths, _ in made for path in paths), sum(count for _, count in made))


def _settle(
    parts: Sequence[Part], log: RawLog, buckets: Buckets, left_out: Sequence[int], folder: str
) -> tuple[list[str], int]:
    """One row of each key of a bucket: files and number of rows."""
    if not parts:
        return [], 0
    if buckets.level < MOST_LEVELS and sum(part.size for part in parts) > BUCKET_MEMORY:
        return _settle_apart(parts, log, buckets, left_out, folder)
    rows = pa.concat_tables([part.read() for part in parts])
    if left_out:
        rows = rows.filter(pc.invert(pc.is_in(rows[FILE], pa.array(left_out, pa.int32()))))
    writer = StagedWriter(folder)
    unique = one_each(rows.drop_columns([FILE]), log)
    writer.add(unique)
    made = writer.close()
    return ([made.path] if made else []), len(unique)


def _settle_apart(
    parts: Sequence[Part], log: RawLog, buckets: Buckets, left_out: Sequence[int], folder: str
) -> tuple[list[str], int]:
    """As ``_settle``, for a bucket that does not fit into memory."""
    deeper = Buckets(key=buckets.key, count=SPLIT, level=buckets.level + 1)
    writer = StagedWriter(storage.join(folder, "parts"), deeper)
    for part in parts:
        for rows in part.blocks():
            writer.add(rows)
    split = writer.close()
    assert split
    smaller = [one for bucket in range(SPLIT) if (one := split.only(bucket))]
    made = [_settle([one], log, deeper, left_out, folder) for one in smaller]
    storage.remove_file(split.path)
    return [path for paths, _ in made for path in paths], sum(count for _, count in made)


def one_each(rows: pa.Table, log: RawLog) -> pa.Table:
    """One row of each key, as ``unique_rows`` chooses it."""
    if not len(rows):
        return rows
    names = rows.column_names
    key = key_of(log, names)
    last = log.dedupe.keep == "last"
    if not last and len(key) + 1 == len(names):
        return rows.group_by(key, use_threads=False).aggregate([("landed_on", "min")]).rename_columns(
            [*key, "landed_on"]
        ).select(names)  # fmt: skip
    order = dict.fromkeys([*([log.dedupe.order] if log.dedupe.order else []), "landed_on", *names])
    sorts = [(name, "ascending", "at_start") for name in [*key, *(name for name in order if name not in key)]]
    ordered = rows.take(pc.sort_indices(rows, sort_keys=sorts))
    begins_N = _begins(ordered.select(key))
    return ordered.filter(pa.array(np.append(begins_N[1:], True) if last else begins_N))


def _begins(keys: pa.Table) -> Any:
    """True where a row's key differs from the one before it, (N,)."""
    begins_N = np.ones(len(keys), np.bool_)
    begins_N[1:] = False
    for column in keys.columns:
        code_N = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
        begins_N[1:] |= code_N[1:] != code_N[:-1]
    return begins_N

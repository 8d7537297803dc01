"""Aggregates of several dates on Spark: narrow the events, shuffle them by user, run the kernel, write Parquet.

Workers write Parquet with pyarrow, because sending the rows back through the JVM's writer takes half as long again as
computing them. Each attempt of a task writes a file of its own, and the driver moves the files of the attempts that
succeeded.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import PythonException
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.engines import is_sail
from gur_spark.errors import AggregateOverflow, BaseSnapshotError, SnapshotError
from gur_spark.features.checksum import checksum
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel.partition import PartitionState
from gur_spark.features.kernel.state_files import PARTS, StateFile, move_states, write_state
from gur_spark.features.spark.hot_users import merge_partial_states, narrow_events
from gur_spark.features.spark.narrowing import narrow_attributes, packing_of
from gur_spark.features.states.tiles import Tiles

ROW_GROUP_ROWS = 1 << 16
"""Rows of a row group, which training shuffles and scoring embeds as a unit."""

PARTITION_BYTES = 256 << 20
"""Bytes of state and of a date's rows that one worker may hold, about.

Users are divided into partitions that do not need more.
"""

TASKS, TASK_EVENTS = 4, 500_000
"""Least number of tasks, as long as each has so many events: two tasks for each core of a small machine.

Spark may use more tasks (``spark.sql.shuffle.partitions``) and joins small partitions; Sail uses this number.
"""

FILES = "as_of STRING, file STRING, rows BIGINT, hash STRING, parts ARRAY<INT>"
"""Schema of the workers' answers, one row per file: a date's rows or, where ``parts`` is given, a saved state."""
_FILES_ARROW = pa.schema(
    [
        *[("as_of", pa.string()), ("file", pa.string()), ("rows", pa.int64())],
        *[("hash", pa.string()), ("parts", pa.list_(pa.int32()))],
    ]
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """Aggregates of a date that were written to its folder."""

    rows: int
    checksum: str
    states: tuple[StateFile, ...] = ()
    """Files of the saved state, from which the days after the date can go on."""


def write_aggregates(
    encoded: DataFrame,
    manifest: Manifest,
    sizes: Mapping[str, int],
    moments: Mapping[date, datetime],
    folders: Mapping[date, str],
    users: DataFrame | None = None,
    partitions: int = 1,
    oldest: date | None = None,
    horizon: int = 0,
    attributes: DataFrame | None = None,
    hot: Collection[Any] = (),
) -> dict[date, Written]:
    """Write one row per user_id with the manifest's columns, for each date, into Parquet files of its folder.

    Args:
        encoded: ``snapshot_events`` of the same dates with derived columns, and with categories as vocabulary ids.
        sizes: categorical field -> greatest id + 1.
        moments: as-of date -> moment until which landings count for it; a later date has no earlier moment.
        folders: as-of date -> folder for its files; the driver and the workers reach it through pyarrow.
        users: frame with a column user_id; each of these users gets a row, with or without events.
        partitions: least number of partitions to divide the users into.
        oldest: day of the first event, where a window begins with the first event.
        horizon: days after the date that can go on from its saved state; 0 saves none. Only for a single date.
        attributes: ``attribute_rows`` of the same dates, encoded, where the manifest has attributes.
        hot: ids of hot users (``hot_users.hot_users``), whose events are counted where they are read.

    Raises:
        AggregateOverflow: a sum left its exact range.
        SnapshotError: a worker cannot write, for example because the disk is full.
    """
    tiles = tiles_of(manifest, list(moments), oldest, horizon)
    packing = packing_of(manifest, tiles, sizes)
    rows = narrow_events(encoded, manifest, packing, tiles, moments, hot)
    if attributes is not None:
        rows = rows.unionByName(narrow_attributes(attributes, manifest, tiles, moments), allowMissingColumns=True)
    if users is not None:
        rows = rows.unionByName(users.select("user_id"), allowMissingColumns=True)
    attempts = {day.isoformat(): storage.join(folder, "_attempts") for day, folder in folders.items()}
    for folder in attempts.values():
        storage.create_folder(folder)

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        state = PartitionState(manifest, tiles)
        state.take(map(packing.unpack, merge_partial_states(state, batches)))
        yield from write_partition(state, attempts, save_state=horizon > 0)

    divided = _by_part(rows, partitions) if horizon else by_user(rows, partitions)
    files = collect_files(divided.mapInArrow(kernel, FILES))
    return {day: move_files([f for f in files if f["as_of"] == day.isoformat()], folders[day]) for day in moments}


def part_of_user() -> Column:
    """``state_files.part_of`` in SQL. It uses CRC-32, which all engines compute alike, unlike their hash functions."""
    return F.pmod(F.crc32(F.col("user_id").cast("STRING").cast("BINARY")), F.lit(PARTS))


def write_partition(
    state: PartitionState, attempts: Mapping[str, str], save_state: bool = False
) -> Iterator[pa.RecordBatch]:
    """Write the files of a partition, and yield a row about each (``FILES``).

    Args:
        attempts: ISO date -> folder for its files.
    """
    if save_state and len(state.users):
        as_of = state.tiles.newest.isoformat()
        yield _record({"as_of": as_of, **write_state(state, attempts[as_of])})
    for day, table in state.tables():
        if table.num_rows:
            yield write_rows(table, attempts[day.isoformat()], day)


def write_rows(table: pa.Table, folder: str, as_of: date, row_group_rows: int = ROW_GROUP_ROWS) -> pa.RecordBatch:
    """Write rows of a date to a file that no other attempt writes; returns a row about it (``FILES``)."""
    file = _write(table, folder, row_group_rows)
    return _record(
        {
            "as_of": as_of.isoformat(),
            "file": file,
            "rows": table.num_rows,
            "hash": str(checksum(table)),
            "parts": None,
        }
    )


def _record(written: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([written], _FILES_ARROW)


def collect_files(written: DataFrame, what: str = "aggregates") -> list[Row]:
    """Run the workers and collect their rows about files (``FILES``).

    Raises:
        AggregateOverflow, BaseSnapshotError: a worker raised it.
        SnapshotError: a worker cannot write.
    """
    try:
        return written.collect()
    except PythonException as error:
        for kind in (AggregateOverflow, BaseSnapshotError):
            said = re.search(rf"{kind.__name__}: ([^\n]+)", str(error))
            if said:
                raise kind(said[1]) from error
        storage_error = re.search(r"(?:OSError|FileNotFoundError|PermissionError): ([^\n]+)", str(error))
        if storage_error is None:
            raise
        raise SnapshotError(
            f"a worker cannot write the {what}: {storage_error[1]}; nothing of them is visible"
        ) from error


def tiles_of(manifest: Manifest, dates: Sequence[date], oldest: date | None = None, horizon: int = 0) -> Tiles:
    """Tiles of some dates.

    Args:
        oldest: day of the first event, where a window begins with the first event.
    """
    return Tiles.of(dates, manifest.windows, manifest.declared_windows, oldest, horizon)


def partitions_for(manifest: Manifest, tiles: Tiles, users: int, events: int) -> int:
    """Number of partitions for so many users and events: enough for memory, and more where there is enough work."""
    per_user, per_event = PartitionState(manifest, tiles).bytes_per_user_and_event()
    needed = -(-(users * per_user + events * per_event) // PARTITION_BYTES)
    return max(needed, min(TASKS, events // TASK_EVENTS))


def tasks_for(session: SparkSession, partitions: int) -> int:
    """Number of tasks that share the users, where these are divided into at least so many partitions."""
    usual = session.conf.get("spark.sql.shuffle.partitions") or ""
    # Databricks may say "auto".
    return max(partitions, int(usual) if usual.isdigit() and not is_sail(session) else 1)


def by_user(rows: DataFrame, partitions: int = 1) -> DataFrame:
    """Divide rows by user into at least so many partitions."""
    usual = rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or ""
    if is_sail(rows.sparkSession):
        return rows.repartition(max(partitions, 1), "user_id")
    # Without a number Spark also joins small partitions. Databricks may say "auto".
    enough = not usual.isdigit() or partitions <= int(usual)
    return rows.repartition("user_id") if enough else rows.repartition(partitions, "user_id")


def _by_part(rows: DataFrame, partitions: int) -> DataFrame:
    usual = rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or ""
    # With a number Spark joins no partitions. Joined ones would be one file, which a single task would go on from.
    return rows.repartition(max(partitions, int(usual) if usual.isdigit() else 1), part_of_user())


def _write(table: pa.Table, folder: str, row_group_rows: int) -> str:
    """Write a table to a file that no other attempt writes; returns its path."""
    path = storage.join(folder, f"{uuid4().hex}.parquet")
    filesystem, inner = storage.open_filesystem(path)
    # Doubles rarely repeat, and looking for a dictionary of them takes a quarter of the time of writing.
    repeating = [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in table.schema
        if not pa.types.is_floating(field.type) and field.name != "user_id"
    ]
    pq.write_table(table, inner, filesystem=filesystem, row_group_size=row_group_rows, use_dictionary=repeating)
    return path


def move_files(written: Sequence[Row], folder: str) -> Written:
    """Move the files of the attempts that succeeded to ``data``, and remove those of other attempts.

    The files are numbered in the order of their checksums, so the same rows have the same file names.
    """
    states = [w for w in written if w["parts"] is not None]
    parts = [w for w in written if w["parts"] is None]
    saved = move_states(states, folder) if states else ()
    storage.create_folder(storage.join(folder, "data"))
    for number, part in enumerate(sorted(parts, key=lambda part: int(part["hash"]))):
        storage.move(part["file"], storage.join(folder, "data", f"part-{number:05d}.parquet"))
    # A speculative attempt that lost may still write there.
    with suppress(OSError):
        storage.remove_folder(storage.join(folder, "_attempts"))
    total = sum(int(part["hash"]) for part in parts) % 2**64
    return Written(rows=sum(part["rows"] for part in parts), checksum=f"{total:016x}", states=saved)

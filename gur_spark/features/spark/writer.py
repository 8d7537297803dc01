"""Events -> one row per user and date on Spark: narrow, shuffle by user, one kernel that writes its own Parquet.

The workers write with pyarrow: sending the rows back through the JVM's writer takes half as long again as computing
them. Each attempt of a task writes a file of its own; the driver moves the files of the attempts that count.
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
from gur_spark.features.checksum import content_hash
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel import PartitionState
from gur_spark.features.spark.narrowing import narrow_attributes, packing_of
from gur_spark.features.spark.partial import merged, narrow_events
from gur_spark.features.states.files import PARTS, StateFile, move_states, write_state
from gur_spark.features.states.tiles import Bands

ROW_GROUP_ROWS = 1 << 16
"""What training shuffles and scoring embeds at a time."""

PARTITION_BYTES = 256 << 20
"""State that one worker may hold, about; a partition is cut so that it does not need more."""

TASKS, TASK_EVENTS = 4, 500_000
"""So many tasks at least, where each has so many events: two for each core of a small machine. Spark has a number of
its own, and joins small partitions; on Sail this is the number."""

FILES = "as_of STRING, file STRING, rows BIGINT, hash STRING, parts ARRAY<INT>"
"""One file: of a date's rows or, where there are ``parts``, of a state."""
_FILES_ARROW = pa.schema(
    [
        *[("as_of", pa.string()), ("file", pa.string()), ("rows", pa.int64())],
        *[("hash", pa.string()), ("parts", pa.list_(pa.int32()))],
    ]
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """The aggregates of a date, as they lie in its folder."""

    rows: int
    checksum: str
    states: tuple[StateFile, ...] = ()
    """What the days after can go on from."""


def write_aggregates(
    encoded: DataFrame,
    manifest: Manifest,
    sizes: Mapping[str, int],
    known: Mapping[date, datetime],
    folders: Mapping[date, str],
    users: DataFrame | None = None,
    partitions: int = 1,
    oldest: date | None = None,
    horizon: int = 0,
    attributes: DataFrame | None = None,
    hot: Collection[Any] = (),
) -> dict[date, Written]:
    """Write one row per user_id with the manifest's columns, for each date, into its folder's Parquet files.

    Args:
        encoded: ``snapshot_events`` of the same dates, prepared, categorical columns as vocabulary ids.
        sizes: greatest id + 1 of each categorical field.
        known: the as-of dates, and what had landed by when counts for each; a later date knows no less.
        folders: where each date's files go; the driver and the workers reach it through pyarrow.
        users: frame with user_id; each of them gets a row, with or without events.
        partitions: the least number to divide the users into.
        oldest: the day of the first event, where a declared window has no end.
        horizon: of one date alone, also write what so many days after can go on from.
        attributes: ``attribute_rows`` of the same dates, encoded, where the manifest has attributes.
        hot: ``partial.hot_users``, whose events are counted where they are read.

    Raises:
        AggregateOverflow: a sum left its exact range.
        SnapshotError: a worker cannot write, for the disk is full, say.
    """
    bands = bands_of(manifest, list(known), oldest, horizon)
    packing = packing_of(manifest, bands, sizes)
    rows = narrow_events(encoded, manifest, packing, bands, known, hot)
    if attributes is not None:
        rows = rows.unionByName(narrow_attributes(attributes, manifest, bands, known), allowMissingColumns=True)
    if users is not None:
        rows = rows.unionByName(users.select("user_id"), allowMissingColumns=True)
    attempts = {day.isoformat(): storage.join(folder, "_attempts") for day, folder in folders.items()}
    for folder in attempts.values():
        storage.create_folder(folder)

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        state = PartitionState(manifest, bands)
        state.take(map(packing.unpack, merged(state, batches)))
        yield from write_all(state, attempts, keep_state=horizon > 0)

    divided = _by_part(rows, partitions) if horizon else by_user(rows, partitions)
    parts = collect(divided.mapInArrow(kernel, FILES))
    return {day: keep([p for p in parts if p["as_of"] == day.isoformat()], folders[day]) for day in known}


def part_of_user() -> Column:
    """``state_files.part_of`` in SQL: a checksum that has one definition, where engines' hashes differ."""
    return F.pmod(F.crc32(F.col("user_id").cast("STRING").cast("BINARY")), F.lit(PARTS))


def write_all(state: PartitionState, attempts: Mapping[str, str], keep_state: bool = False) -> Iterator[pa.RecordBatch]:
    """Write a partition's files; yields what the driver must know of each."""
    if keep_state and len(state.users):
        as_of = state.bands.newest.isoformat()
        yield _record({"as_of": as_of, **write_state(state, attempts[as_of])})
    for day, table in state.tables():
        if table.num_rows:
            yield write_rows(table, attempts[day.isoformat()], day)


def write_rows(table: pa.Table, folder: str, as_of: date, row_group_rows: int = ROW_GROUP_ROWS) -> pa.RecordBatch:
    """Write a date's rows to a file that no other attempt writes; returns what the driver must know of it."""
    file = _write(table, folder, row_group_rows)
    return _record(
        {
            "as_of": as_of.isoformat(),
            "file": file,
            "rows": table.num_rows,
            "hash": str(content_hash(table)),
            "parts": None,
        }
    )


def _record(written: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([written], _FILES_ARROW)


def collect(written: DataFrame, what: str = "aggregates") -> list[Row]:
    """What the workers say; an overflow or a full disk that one of them found is raised as what it is."""
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


def bands_of(manifest: Manifest, dates: Sequence[date], oldest: date | None = None, horizon: int = 0) -> Bands:
    """The bands of some dates; ``oldest`` is the day of the first event, where a window has no end."""
    return Bands.of(dates, manifest.windows, manifest.declared_windows, oldest, horizon)


def partitions_for(manifest: Manifest, bands: Bands, users: int, events: int) -> int:
    """Into how many partitions so many users with so many events in the windows are cut: as many as memory needs, and
    some more where there is enough to do at once."""
    per_user, per_event = PartitionState(manifest, bands).bytes_per_user_and_event()
    needed = -(-(users * per_user + events * per_event) // PARTITION_BYTES)
    return max(needed, min(TASKS, events // TASK_EVENTS))


def tasks_for(session: SparkSession, partitions: int) -> int:
    """How many tasks share the users, where they are divided into at least so many partitions."""
    usual = session.conf.get("spark.sql.shuffle.partitions") or ""
    # Databricks may say "auto".
    return max(partitions, int(usual) if usual.isdigit() and not is_sail(session) else 1)


def by_user(rows: DataFrame, partitions: int = 1) -> DataFrame:
    """All rows of a user in one partition, of which there are at least so many."""
    usual = rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or ""
    if is_sail(rows.sparkSession):
        return rows.repartition(max(partitions, 1), "user_id")
    # Without a number Spark also joins partitions that turn out small. Databricks may say "auto".
    enough = not usual.isdigit() or partitions <= int(usual)
    return rows.repartition("user_id") if enough else rows.repartition(partitions, "user_id")


def _by_part(rows: DataFrame, partitions: int) -> DataFrame:
    usual = rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or ""
    # With a number none are joined: what became one file would be gone on from in one task.
    return rows.repartition(max(partitions, int(usual) if usual.isdigit() else 1), part_of_user())


def _write(table: pa.Table, folder: str, row_group_rows: int) -> str:
    """Write a file that no other attempt writes; returns its path."""
    path = storage.join(folder, f"{uuid4().hex}.parquet")
    filesystem, inner = storage.open_filesystem(path)
    # Doubles rarely repeat: looking for a dictionary of them takes a quarter of the time of writing.
    repeating = [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in table.schema
        if not pa.types.is_floating(field.type) and field.name != "user_id"
    ]
    pq.write_table(table, inner, filesystem=filesystem, row_group_size=row_group_rows, use_dictionary=repeating)
    return path


def keep(written: Sequence[Row], folder: str) -> Written:
    """Move the files of the attempts that count to ``data``, in an order that their content decides; the others go."""
    states = [w for w in written if w["parts"] is not None]
    parts = [w for w in written if w["parts"] is None]
    kept = move_states(states, folder) if states else ()
    storage.create_folder(storage.join(folder, "data"))
    for number, part in enumerate(sorted(parts, key=lambda part: int(part["hash"]))):
        storage.move(part["file"], storage.join(folder, "data", f"part-{number:05d}.parquet"))
    # A speculative attempt that lost may write there until it is stopped.
    with suppress(OSError):
        storage.remove_folder(storage.join(folder, "_attempts"))
    total = sum(int(part["hash"]) for part in parts) % 2**64
    return Written(rows=sum(part["rows"] for part in parts), checksum=f"{total:016x}", states=kept)

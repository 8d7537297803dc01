"""Events -> one row per user, arrays in the order of time, in a flat Parquet folder that pytorch-lifestream reads.

``ROOT/sequences/<as_of>/<run id>/*.parquet`` and ``manifest.json``, which is written last: a folder without one is what
a killed run left. The rows are ``S(as_of, known_at, w)``, the same that the aggregates of the date are made of.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.engines import is_sail
from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import encode
from gur_spark.features.checksum import content_hash
from gur_spark.features.declare.manifest import Manifest, SequenceManifest, missing_column, sequence_columns
from gur_spark.features.declare.spec import Window
from gur_spark.features.spark import narrowing
from gur_spark.features.spark import writer as windows
from gur_spark.schema import MISSING_ID, PADDING_ID, VALUE_ID
from gur_spark.snapshots.routes import Wanted, check_landings, events_range
from gur_spark.tables.delta import Tables, check_keys
from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")

FILE_EVENTS = 1 << 20
"""Events after which a file ends: pytorch-lifestream holds a whole file in memory, and shuffles files."""

PARTITION_EVENTS = 1 << 23
"""Events of a partition, at most about: where the engine does not sort them, a worker holds them."""

ROW_GROUP_USERS = 4096

MANIFEST = "manifest.json"

_FILES = "file STRING, rows BIGINT, events BIGINT, hash STRING"
_FILES_ARROW = pa.schema([("file", pa.string()), ("rows", pa.int64()), ("events", pa.int64()), ("hash", pa.string())])


def write_sequences(
    tables: Tables,
    config: Config,
    as_of: date,
    run: Run,
    *,
    window: Window | None = None,
    max_events: int | None = None,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
    parent: str | None = None,
) -> tuple[str, SequenceManifest]:
    """Write the sequences of one date; returns the folder and its manifest.

    One row per user with an event in the window. The content is the same whatever the order, files and partitions of
    the events: a user's are in the order of their time and, at one time, of their values.

    Args:
        window: which events count; the longest one of ``aggregates.windows`` if there is no other wish.
        max_events: of a user with more, only the newest.
        vocabulary_version: the ids of the categories; the newest if none is given.
        known_at: what had landed by when counts; by default as_of midnight UTC plus the configured delay.
        parent: in which ``<as_of>/<run id>`` is written; by default ``ROOT/sequences``.

    Raises:
        TableError: ``events`` or ``vocabulary`` does not exist, or the vocabulary lacks a field.
        ConfigError: a field's name means something else to pytorch-lifestream.
        SnapshotError: nobody had an event in the window, or the landings have not come to the date.
    """
    wanted = Wanted.of(tables, config, vocabulary_version)
    manifest, vocabulary = wanted.manifest, wanted.vocabulary
    window = window or Window(days=manifest.windows[-1])
    known_at = known_at or narrowing.known_at(as_of, config.aggregates.delay_days)
    columns = sequence_columns(manifest, vocabulary.sizes)
    table = narrowing.event_rows(wanted.events(tables), manifest)
    inside = _window_events(table, as_of, known_at, window)
    events = _check_events(tables, config, inside, as_of, known_at, window)
    folder = storage.join(parent or tables.folder("sequences"), as_of.isoformat(), run.id)
    encoded = encode(inside, vocabulary, manifest.categorical)
    files = _write(_by_user(encoded, manifest, events), Rows(manifest=manifest, as_of=as_of), max_events, folder)
    rows = check_keys(tables.spark.read.parquet(folder).select("user_id"), ["user_id"], f"sequences {folder}")
    made = SequenceManifest(
        as_of=as_of,
        known_at=known_at,
        days=window.days,
        before_days=window.before,
        max_events=max_events,
        user_id_type=manifest.user_id_type,
        vocabulary_version=vocabulary.version,
        vocabulary_hash=vocabulary.hash,
        lineage=wanted.lineage,
        rows=rows,
        events=sum(file["events"] for file in files),
        checksum=f"{sum(int(file['hash']) for file in files) % 2**64:016x}",
        columns=columns,
    )
    storage.write_text(storage.join(folder, MANIFEST), made.to_json())
    log.info("sequences %s: %s users, %s events, %s", as_of, f"{made.rows:,}", f"{made.events:,}", folder)
    run.inputs |= {"events": wanted.lineage, "vocabulary": f"{vocabulary.version} {vocabulary.hash}"}
    run.outputs[f"sequences {as_of}"] = folder
    run.counts |= {f"users {as_of}": made.rows, f"events {as_of}": made.events}
    return folder, made


def read_manifest(folder: str) -> SequenceManifest:
    """The manifest of a folder of sequences.

    Raises:
        SnapshotError: there is none, so the folder is not whole; or it is damaged.
    """
    try:
        return SequenceManifest.model_validate_json(storage.read_text(storage.join(folder, MANIFEST)))
    except FileNotFoundError as error:
        raise SnapshotError(f"{folder} has no {MANIFEST}: not sequences, or a run that was killed") from error
    except ValueError as error:
        raise SnapshotError(f"{folder}: {MANIFEST} is damaged: {error}") from error


def _window_events(events: DataFrame, as_of: date, known_at: datetime, window: Window) -> DataFrame:
    reach = None if window.days is None else window.days + window.before
    inside = narrowing.snapshot_events(events, {as_of: known_at}, reach)
    return inside.where(F.col("event_time") < narrowing.midnight(as_of - timedelta(window.before)))


def _check_events(
    tables: Tables, config: Config, inside: DataFrame, as_of: date, known_at: datetime, window: Window
) -> int:
    """How many there are."""
    found = inside.agg(F.count(F.lit(1)).alias("events"), F.max("landed_on").alias("landed")).first()
    assert found is not None
    if not found["events"]:
        raise SnapshotError(
            f"no event {window.meaning.replace('as_of', str(as_of))} that had landed before "
            f"{known_at:%Y-%m-%d %H:%M} (as_of {as_of}); {events_range(tables)}"
        )
    check_landings(as_of, found["landed"], config.aggregates.landing_gap_days)
    return int(found["events"])


def _by_user(encoded: DataFrame, manifest: Manifest, events: int) -> DataFrame:
    """A user's events in one partition; times in microseconds, numbers in steps. All columns together order them."""
    logs = [entry.name for entry in manifest.logs]
    values = {name: F.col(name) for name in manifest.categorical}
    for name in manifest.categorical if logs else ():
        having = [entry.name for entry in manifest.logs if name in entry.fields]
        values[name] = F.when(F.col("source").isin(having), F.col(name)).otherwise(F.lit(PADDING_ID))
    if logs:
        values["source"] = F.array_position(F.array(*map(F.lit, logs)), F.col("source")).cast("INT")
    values |= {field.name: F.col(field.name) for field in manifest.numeric}
    narrow = encoded.select(
        "user_id",
        F.unix_micros("event_time").alias("event_time"),
        *[column.alias(name) for name, column in values.items()],
    )
    return windows.by_user(narrow, -(-events // PARTITION_EVENTS))


def _write(events: DataFrame, rows: "Rows", max_events: int | None, folder: str) -> list[Row]:
    """Each task writes files of its own; those of the attempts that count come into the folder."""
    attempts = storage.join(folder, "_attempts")
    storage.create_folder(attempts)

    # Sail drops a sort whose order no operator of its own needs; Spark's sort can spill to disk.
    spills = not is_sail(events.sparkSession)
    if spills:
        events = events.sortWithinPartitions(*events.columns)

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ordered = batches if spills else in_order(batches)
        for users in rows.files(whole_users(ordered, max_events)):
            yield pa.RecordBatch.from_pylist([write_file(users, attempts)], _FILES_ARROW)

    written = sorted(windows.collect(events.mapInArrow(kernel, _FILES), "sequences"), key=lambda w: int(w["hash"]))
    for number, file in enumerate(written):
        storage.move(file["file"], storage.join(folder, f"part-{number:05d}.parquet"))
    # A speculative attempt that lost may write there until it is stopped.
    with suppress(OSError):
        storage.remove_folder(attempts)
    return written


def in_order(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A partition's events as Spark sorts them: by all columns, nulls first."""
    parts = list(batches)
    if parts:
        events = pa.Table.from_batches(parts)
        keys = [(name, "ascending", "at_start") for name in events.column_names]
        yield from events.take(pc.sort_indices(events, sort_keys=keys)).to_batches()


def whole_users(batches: Iterator[pa.RecordBatch], max_events: int | None = None) -> Iterator[pa.Table]:
    """Sorted events in tables that hold all events of their users, or the ``max_events`` newest; none is empty.

    Holds a batch and one user's events at a time.
    """
    last: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        begins = _first_rows(batch.column("user_id"))[-1]
        same = last and last[0].column("user_id")[0] == batch.column("user_id")[0]
        if last and not (same and begins == 0):
            ended = batch.slice(0, begins)
            yield _newest(pa.Table.from_batches([*last, *([ended] if begins else [])]), max_events)
            last = []
        elif begins:
            yield _newest(pa.Table.from_batches([batch.slice(0, begins)]), max_events)
        last.append(batch.slice(begins))
        if max_events and sum(part.num_rows for part in last) > 2 * max_events:
            last = _newest(pa.Table.from_batches(last), max_events).combine_chunks().to_batches()
    if last:
        yield _newest(pa.Table.from_batches(last), max_events)


def _first_rows(users: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Where each user's events begin."""
    changes = pc.not_equal(users.slice(1), users.slice(0, len(users) - 1))
    return np.concatenate(([0], np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1))


def _newest(events: pa.Table, max_events: int | None) -> pa.Table:
    events = events.combine_chunks()
    if max_events is None:
        return events
    first = _first_rows(events["user_id"].chunk(0))
    ends = np.append(first[1:], events.num_rows)
    after = np.repeat(ends, np.diff(np.append(first, events.num_rows))) - np.arange(events.num_rows)
    return events.filter(pa.array(after <= max_events)).combine_chunks()


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How events that are sorted by user become one row per user."""

    manifest: Manifest
    as_of: date

    def files(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Rows in tables of about ``FILE_EVENTS`` events."""
        rows: list[pa.Table] = []
        events = 0
        for table in tables:
            rows.append(self.of(table))
            events += table.num_rows
            if events >= FILE_EVENTS:
                yield pa.concat_tables(rows)
                rows, events = [], 0
        if rows:
            yield pa.concat_tables(rows)

    def of(self, events: pa.Table) -> pa.Table:
        """The rows of the users of these events, in the order of ``schema.sequence_columns``."""
        users = events["user_id"].chunk(0)
        first = _first_rows(users)
        as_of = int(datetime(self.as_of.year, self.as_of.month, self.as_of.day, tzinfo=UTC).timestamp())
        offsets = pa.array(np.append(first, events.num_rows), pa.int32())
        lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in self._values(events).items()}
        return pa.table(
            {"user_id": users.take(pa.array(first)), "as_of": pa.array(np.full(len(first), as_of)), **lists}
        )

    def _values(self, events: pa.Table) -> dict[str, pa.Array]:
        values: dict[str, pa.Array] = {"event_time": pa.array(events["event_time"].to_numpy() // 1_000_000)}
        named = [*(["source"] if self.manifest.logs else []), *self.manifest.categorical]
        values |= {name: events[name].chunk(0).cast(pa.int32()) for name in named}
        for field in self.manifest.numeric:
            steps = events[field.name].chunk(0)
            numerator, denominator = field.step.as_integer_ratio()
            units = pc.fill_null(steps, 0).to_numpy().astype(np.float64) * numerator / denominator
            known = steps.is_valid().to_numpy(zero_copy_only=False)
            values[field.name] = pa.array(units)
            values[missing_column(field.name)] = pa.array(np.where(known, VALUE_ID, MISSING_ID).astype(np.int32))
        return values


def write_file(users: pa.Table, folder: str) -> dict[str, object]:
    """Write a file that no other attempt writes; returns what the driver must know of it."""
    path = storage.join(folder, f"{uuid4().hex}.parquet")
    filesystem, inner = storage.open_filesystem(path)
    pq.write_table(users, inner, filesystem=filesystem, row_group_size=ROW_GROUP_USERS)
    events = pc.sum(pc.list_value_length(users["event_time"])).as_py()
    return {"file": path, "rows": users.num_rows, "events": events, "hash": str(content_hash(users))}

"""Events sorted by user -> one row per user with a list per column; pyarrow and numpy, batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.features.declare.manifest import ID_UNIT, NumericField, SequenceManifest, missing_column
from gur_spark.schema import MISSING_ID, VALUE_ID

FILE_EVENTS = 1 << 20
"""Rows of events after which a file ends: pytorch-lifestream holds a whole file in memory, and shuffles files."""


def in_order(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A partition's rows as Spark sorts them: by all columns, nulls first. Holds the partition."""
    parts = list(batches)
    if parts:
        rows = pa.Table.from_batches(parts)
        keys = [(name, "ascending", "at_start") for name in rows.column_names]
        yield from rows.take(pc.sort_indices(rows, sort_keys=keys)).to_batches()


def whole_users(batches: Iterator[pa.RecordBatch], max_events: int | None = None) -> Iterator[pa.Table]:
    """Sorted rows in tables that hold all rows of their users, or the ``max_events`` last ones; none is empty.

    Holds a batch and one user's rows at a time.
    """
    last: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        begins = first_rows(batch.column("user_id"))[-1]
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


def first_rows(users: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The position at which each user's rows begin, in rows sorted by user."""
    changes = pc.not_equal(users.slice(1), users.slice(0, len(users) - 1))
    return np.concatenate(([0], np.flatnonzero(changes.to_numpy(zero_copy_only=False)) + 1))


def _newest(events: pa.Table, max_events: int | None) -> pa.Table:
    events = events.combine_chunks()
    if max_events is None:
        return events
    first = first_rows(events["user_id"].chunk(0))
    ends = np.append(first[1:], events.num_rows)
    after = np.repeat(ends, np.diff(np.append(first, events.num_rows))) - np.arange(events.num_rows)
    return events.filter(pa.array(after <= max_events)).combine_chunks()


def file_by_file(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables of whole users, put together until they have ``FILE_EVENTS`` rows."""
    some: list[pa.Table] = []
    rows = 0
    for table in tables:
        some.append(table)
        rows += table.num_rows
        if rows >= FILE_EVENTS:
            yield pa.concat_tables(some)
            some, rows = [], 0
    if some:
        yield pa.concat_tables(some)


@dataclass(frozen=True, kw_only=True)
class SequenceRows:
    """How events that are sorted by user become one row per user."""

    manifest: SequenceManifest
    numeric: tuple[NumericField, ...]
    """The numbers with their steps, which events are counted in."""
    as_of: date

    def of(self, events: pa.Table) -> pa.Table:
        """The rows of the users of these events, with the manifest's columns in order."""
        events = events.combine_chunks()
        users = events["user_id"].chunk(0)
        first = first_rows(users)
        as_of = int(datetime(self.as_of.year, self.as_of.month, self.as_of.day, tzinfo=UTC).timestamp())
        offsets = pa.array(np.append(first, events.num_rows), pa.int32())
        lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in self._values(events).items()}
        return pa.table(
            {"user_id": users.take(pa.array(first)), "as_of": pa.array(np.full(len(first), as_of)), **lists}
        )

    def _values(self, events: pa.Table) -> dict[str, pa.Array]:
        values: dict[str, pa.Array] = {"event_time": pa.array(events["event_time"].to_numpy() // 1_000_000)}
        ids = [c.name for c in self.manifest.columns if c.unit == ID_UNIT or c.name == "source"]
        values |= {name: events[name].chunk(0).cast(pa.int32()) for name in ids}
        for field in self.numeric:
            steps = events[field.name].chunk(0)
            numerator, denominator = field.step.as_integer_ratio()
            units = pc.fill_null(steps, 0).to_numpy().astype(np.float64) * numerator / denominator
            known = steps.is_valid().to_numpy(zero_copy_only=False)
            values[field.name] = pa.array(units)
            values[missing_column(field.name)] = pa.array(np.where(known, VALUE_ID, MISSING_ID).astype(np.int32))
        return values

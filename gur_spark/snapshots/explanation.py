"""The events behind one number of an aggregate snapshot, and the number computed again in plain Python.

This is for an analyst who doubts a value, so it shares nothing with the kernel that made it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import SnapshotError, nearest
from gur_spark.events.sets import each_member
from gur_spark.events.vocabulary import encode, read_vocabulary
from gur_spark.features.declare.manifest import Column, Manifest, NumericField
from gur_spark.features.declare.plan import plan_of
from gur_spark.features.spark.derived import add_derived
from gur_spark.features.spark.selection import event_rows, snapshot_events
from gur_spark.features.states.base import DAY_US
from gur_spark.features.states.tiles import HOUR_US
from gur_spark.snapshots.recount import STATISTICS, Recount
from gur_spark.snapshots.visible import Snapshot
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.paths import read_parquet

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of the feature's window."""

    time: datetime
    """UTC."""
    landed_on: date
    value: Any
    """Value of the feature's field: a number in its unit or a category's text; None for activity."""
    id: int | None = None
    """Vocabulary id of a category."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One value of one user in one snapshot."""

    user_id: Any
    as_of: date
    known_at: datetime
    feature: Column
    stored: Any
    """The value in the snapshot."""
    recomputed: Any
    """The value by the table ``events`` as it is now, in exact arithmetic, rounded once."""
    agrees: bool | None
    """Whether the two values are equal; None for a statistic that is not recomputed."""
    count: int
    """Events in the feature's window that satisfy its condition."""
    events: Sequence[Event]
    """The first of them, in order of time."""

    def __str__(self) -> str:
        window = self.feature.window
        end = _time_before(self.as_of, timedelta(hours=window.gap))
        start = "" if window.reach is None else f"{_time_before(self.as_of, window.reach)} <= "
        lines = [
            f"{self.feature.name} of user {self.user_id!r} at {self.as_of}: {self.feature.meaning}",
            f"  window      {start}event_time < {end} (UTC), landed before {self.known_at:%Y-%m-%d %H:%M}",
            f"  stored      {self.stored}   {self.feature.unit}",
        ]
        if self.agrees is None:
            lines += [f"  from {self.count:,} events; '{self.feature.statistic}' is not recomputed in plain Python"]
        else:
            lines += [f"  recomputed  {self.recomputed}   from {self.count:,} events"]
            lines += [f"  {'equal' if self.agrees else _DIFFERENT}"]
        lines += [f"    {_line(event)}" for event in self.events]
        if self.count > len(self.events):
            lines.append(f"    ... and {self.count - len(self.events):,} more")
        return "\n".join(lines)


_DIFFERENT = (
    "DIFFERENT: events that landed after the snapshot was made, or a landing delivered again; aggregate it again"
)


def explain(
    spark: SparkSession,
    config: Config,
    user_id: Any,
    as_of: date,
    feature: str,
    limit: int = 100,
    known_at: datetime | None = None,
) -> Explanation:
    """Explain the value of ``feature``, a column of the aggregates, of a user at a date.

    Args:
        limit: the number of events that are listed; all of them are counted.
        known_at: the moment before which the snapshot's rows had landed; default: as_of midnight UTC +
            ``aggregates.delay_days``.

    Raises:
        SnapshotError: no snapshot of the date, no such column, or no row of the user.
    """
    tables = open_tables(spark, config.tables)
    snapshot = find_snapshot(tables, config, as_of, known_at=known_at)
    manifest = snapshot.manifest(Manifest)
    column = _column(manifest, feature)
    _check_step(manifest, config.manifest(), column)
    stored = _stored(spark, snapshot, user_id, feature)
    recount = Recount(
        start_us=column.window.gap * HOUR_US,
        end_us=_end_us(column),
        ids_end_us=_end_us(_ids_column(manifest, column)),
        categorical=column.field in (*manifest.categorical, *manifest.attribute_categories),
        several=column.field in manifest.separators,
    )
    number = _number(manifest, column)
    step = number.step if number else None
    listed: list[Event] = []
    for row in _events(tables, snapshot, manifest, column, user_id).toLocalIterator():
        age_us = _micros(as_of) - row.time_us
        if recount.add(age_us, row.value, row.landed_on) and len(listed) < limit:
            listed.append(_event(row, step))
    known = column.statistic in STATISTICS and (column.value is not None or not column.by)
    recomputed = recount.value(column.statistic, Fraction(step or 1)) if known else None
    return Explanation(
        user_id=user_id,
        as_of=as_of,
        known_at=snapshot.known_at,
        feature=column,
        stored=stored,
        recomputed=recomputed,
        agrees=_same(stored, recomputed) if known else None,
        count=recount.events,
        events=listed,
    )


def _column(manifest: Manifest, feature: str) -> Column:
    known = {column.name: column for column in manifest.columns if column.statistic != "key"}
    if feature not in known:
        raise SnapshotError(f"no feature '{feature}'{nearest(feature, list(known))}; available: {list(known)}")
    return known[feature]


def _ids_column(manifest: Manifest, column: Column) -> Column:
    """The column with the ids of a histogram's counts; for another column, the column itself."""
    ids = column.name.rpartition("_counts_")[0] + "_ids"
    return next((c for c in manifest.columns if c.name == ids and column.statistic == "counts"), column)


def _end_us(column: Column) -> float:
    """Age of the oldest events of a column's window."""
    reach = column.window.reach
    return math.inf if reach is None else reach // timedelta(microseconds=1)


def _number(manifest: Manifest, column: Column) -> NumericField | None:
    """The numeric field of a column; None for a category or for the events themselves."""
    numbers = (*manifest.numeric, *(f.numeric for f in manifest.attributes if f.numeric))
    return next((number for number in numbers if number.name == column.field), None)


def _check_step(manifest: Manifest, now: Manifest, column: Column) -> None:
    """Refuse a number whose step changed: ``events`` holds steps, which would now mean other numbers."""
    made, configured = _number(manifest, column), _number(now, column)
    if made != configured:
        raise SnapshotError(
            f"field '{column.field}' was declared as {made!r} for the snapshot, and is {configured!r} now: "
            "aggregate again"
        )


def _stored(spark: SparkSession, snapshot: Snapshot, user_id: Any, feature: str) -> Any:
    row = read_parquet(spark, snapshot.data).where(F.col("user_id") == F.lit(user_id)).select(feature).first()
    if row is None:
        raise SnapshotError(f"user {user_id!r} has no row in the snapshot of {snapshot.as_of}")
    return row[0]


def _events(tables: Tables, snapshot: Snapshot, manifest: Manifest, column: Column, user_id: Any) -> DataFrame:
    """The user's events that satisfy the condition; for an attribute, the rows of its log.

    Columns: time_us, landed_on, value (steps or id) and its text.
    """
    table, known = tables.read("events").where(F.col("user_id") == F.lit(user_id)), {snapshot.as_of: snapshot.known_at}
    attribute = next((field for field in manifest.attributes if field.name == column.field), None)
    if attribute:
        events = snapshot_events(table.where(F.col("source") == attribute.log), known, None)
    else:
        events = snapshot_events(event_rows(table, manifest), known, manifest.reach)
    if column.where:
        events = add_derived(events, manifest).where(F.col(plan_of(manifest).where_column(column.where)) == 1)
    if column.value is not None:
        events = events.where(F.col(str(column.by)) == F.lit(column.value))
    value = F.lit(None).cast("bigint") if column.field is None else F.col(column.field)
    if attribute:
        mine = {f.name: f.separator for f in manifest.attributes if f.log == attribute.log and f.separator}
        events = each_member(events, mine)
    events = events.withColumn("_text", value.cast("string"))
    together = [field for field in manifest.attributes if attribute and field.log == attribute.log]
    names = [field.name for field in together] or [column.field or ""]
    categories = [n for n in names if n in (*manifest.categorical, *manifest.attribute_categories)]
    if categories:
        events = encode(events, read_vocabulary(tables, snapshot.vocabulary_version), categories)
    # Among attributes that hold from the same moment, the newest landed last or, in one landing, has greater values.
    ordered = events.orderBy("event_time", "landed_on", *(names if attribute else [value]))
    time, text = F.unix_micros("event_time").alias("time_us"), F.col("_text").alias("text")
    return ordered.select(time, "landed_on", value.alias("value"), text)


def _event(row: Any, step: Any) -> Event:
    time = _EPOCH + timedelta(microseconds=row.time_us)
    if row.value is None:
        return Event(time=time, landed_on=row.landed_on, value=None)
    if step is None:
        return Event(time=time, landed_on=row.landed_on, value=row.text, id=row.value)
    return Event(time=time, landed_on=row.landed_on, value=row.value * step)


def _line(event: Event) -> str:
    value = "" if event.value is None and event.id is None else f"  {event.value}"
    known_as = "" if event.id is None else f"  (id {event.id})"
    return f"{event.time:%Y-%m-%d %H:%M:%S}  landed {event.landed_on}{value}{known_as}"


def _time_before(day: date, time: timedelta) -> str:
    """So much time before a date's midnight: the date or, inside a day, date and hour."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - time
    return f"{moment:%Y-%m-%d}" if moment.hour == 0 else f"{moment:%Y-%m-%d %H:%M}"


def _micros(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_US


def _same(stored: Any, recomputed: Any) -> bool:
    """Whether two values are equal; numbers that the kernel divided may differ in the last places of a double."""
    if isinstance(stored, float) and isinstance(recomputed, float):
        return math.isclose(stored, recomputed, rel_tol=1e-12, abs_tol=1e-300)
    return bool(stored == recomputed)

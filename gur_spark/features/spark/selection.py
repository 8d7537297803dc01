"""Rows of ``events`` that a snapshot is made from."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.features.declare.manifest import Manifest


def known_at(as_of: date, delay_days: int) -> datetime:
    """The moment until which landings count for a snapshot: midnight UTC of as_of plus the delay."""
    return datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC) + timedelta(days=delay_days)


def event_rows(events: DataFrame, manifest: Manifest) -> DataFrame:
    """Rows of ``events`` that are events of the declared logs, without the columns of attributes."""
    if not manifest.logs:
        return events
    names = [log.name for log in manifest.logs]
    return events.where(F.col("source").isin(names)).drop(*[field.name for field in manifest.attributes])


def attribute_rows(events: DataFrame, manifest: Manifest) -> DataFrame:
    """Rows of ``events`` that are rows of attributes."""
    return events.where(F.col("source").isin(list(manifest.attribute_logs)) if manifest.attributes else F.lit(False))


def snapshot_events(events: DataFrame, moments: Mapping[date, datetime], reach: timedelta | None) -> DataFrame:
    """Events in the longest window of some date that had landed before the moment of some date.

    For one date it is ``S(as_of, known_at, w)``; for several, whose windows must leave no gap, the union of these.

    Args:
        moments: as-of date -> moment until which landings count for it.
        reach: time from the beginning of the longest window to its date; None where it begins with the first event.
    """
    landed = F.col("landed_on") <= F.lit(last_landing(max(moments.values())))
    inside = events.where((F.col("event_time") < midnight(max(moments))) & landed)
    return inside if reach is None else inside.where(F.col("event_time") >= time_before(min(moments), reach))


def last_landing(known_at: datetime) -> date:
    """The newest landing that counts for a snapshot: a landing counts from its midnight on.

    It is a date, so that Parquet can skip row groups by it.
    """
    return (known_at.astimezone(UTC) - timedelta(microseconds=1)).date()


def midnight(day: date) -> Column:
    """The timestamp of a date's midnight UTC."""
    return time_before(day, timedelta())


def time_before(day: date, time: timedelta) -> Column:
    """The timestamp so much time before a date's midnight UTC, in whole seconds."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - time
    return F.lit(f"{moment:%Y-%m-%d %H:%M:%S}+00:00").cast("timestamp")

"""Events -> one row per user of a snapshot, on Spark: narrow, shuffle by user, one kernel."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.features.kernel import AGE, DAY_US, aggregate_partition
from gur_spark.features.packing import Packing
from gur_spark.schema import Manifest

_SQL_TYPES = {"long": "BIGINT", "double": "DOUBLE", "array<int>": "ARRAY<INT>", "date": "DATE", "string": "STRING"}
_EPOCH = date(1970, 1, 1)


def known_at(as_of: date, delay_days: int) -> datetime:
    """Until when landings count for a snapshot: as_of midnight UTC plus the delay."""
    return datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC) + timedelta(days=delay_days)


def snapshot_events(events: DataFrame, as_of: date, known_at: datetime, longest_window: int) -> DataFrame:
    """``S(as_of, known_at, w)``: events of the window that had landed before ``known_at``."""
    start, end = _midnight(as_of - timedelta(days=longest_window)), _midnight(as_of)
    # A landing counts from its midnight on; compared as a date, Parquet can skip by it.
    last_landing = (known_at.astimezone(UTC) - timedelta(microseconds=1)).date()
    return events.where(
        (F.col("event_time") >= start) & (F.col("event_time") < end) & (F.col("landed_on") <= F.lit(last_landing))
    )


def aggregate(
    encoded: DataFrame, manifest: Manifest, sizes: Mapping[str, int], as_of: date, users: DataFrame | None = None
) -> DataFrame:
    """One row per user_id with the manifest's columns.

    Args:
        encoded: the snapshot's events, categorical columns as vocabulary ids.
        sizes: greatest id + 1 of each categorical field.
        users: frame with user_id; each of them gets a row, with or without events.

    Raises:
        AggregateOverflow: (when the frame is computed) a sum left its exact range.
    """
    packing = Packing.of(
        {AGE: (manifest.windows[-1] * DAY_US).bit_length()}
        | {name: (sizes[name] - 1).bit_length() for name in manifest.categorical}
    )
    age = F.unix_micros(_midnight(as_of)) - F.unix_micros("event_time")
    values = {AGE: age, **{name: F.col(name) for name in manifest.categorical}}
    words = [_word(packing, number, values).alias(name) for number, name in enumerate(packing.words)]
    rows = encoded.select("user_id", *words, *[field.name for field in manifest.numeric])
    if users is not None:
        rows = rows.unionByName(users.select("user_id"), allowMissingColumns=True)
    as_of_days = (as_of - _EPOCH).days

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return aggregate_partition(map(packing.unpack, batches), manifest, as_of_days)

    return rows.repartition("user_id").mapInArrow(kernel, output_schema(manifest))


def _word(packing: Packing, number: int, values: Mapping[str, Column]) -> Column:
    shifted = [
        F.shiftleft(values[name].cast("BIGINT"), part.shift)
        for name, part in packing.parts.items()
        if part.word == number
    ]
    return reduce(Column.bitwiseOR, shifted)


def output_schema(manifest: Manifest) -> str:
    """The aggregates' columns as a Spark schema."""
    return ", ".join(f"{c.name} {_SQL_TYPES[c.dtype]}" for c in manifest.columns)


def _midnight(day: date) -> Column:
    return F.lit(f"{day} 00:00:00+00:00").cast("timestamp")

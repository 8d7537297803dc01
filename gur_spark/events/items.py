"""Attributes of items at a date, from the table ``items``."""

from collections.abc import Mapping
from datetime import date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.config.fields import Numeric
from gur_spark.config.logs import ItemLog
from gur_spark.features.spark.selection import last_landing, midnight
from gur_spark.tables.delta import Tables


def items_as_of(tables: Tables, logs: Mapping[str, ItemLog], as_of: date, known_at: datetime) -> DataFrame:
    """One row per item: of each log the newest row that held before ``as_of`` and had landed before ``known_at``.

    Columns: ``item``, ``valid_from`` (of the newest of these rows), then the attributes of all logs, categories as text
    and numbers as doubles in their unit. Among rows of one log that are valid from the same moment, the one that landed
    last counts; among those, the one with the greater values, in the order of the log's fields, null being the least.
    An item that no such row is about has no row, so a reader that joins from elsewhere gets nulls.

    Raises:
        TableError: there is no table ``items`` yet.
    """
    table = tables.read("items", made_by="ingest")
    landed = F.col("landed_on") <= F.lit(last_landing(known_at))
    held = table.where((F.col("valid_from") < midnight(as_of)) & landed & F.col("source").isin(list(logs)))
    # The later a row holds from, and then the later it landed, the greater it is.
    rows = {
        name: F.when(F.col("source") == name, ordered_row(log, "valid_from", "landed_on")) for name, log in logs.items()
    }
    newest = held.groupBy("item").agg(*[F.max(row).alias(_row(name)) for name, row in rows.items()])
    times = [F.col(f"{_row(name)}.valid_from") for name in logs]
    return newest.select(
        "item",
        (F.greatest(*times) if len(times) > 1 else times[0]).alias("valid_from"),
        *[
            _value(F.col(f"{_row(name)}.{field.name}"), field if isinstance(field, Numeric) else None).alias(field.name)
            for name, log in logs.items()
            for field in log.fields.values
        ],
    )


def _row(log: str) -> str:
    return f"_newest_{log}"


def ordered_row(log: ItemLog, *first: str) -> Column:
    """A row of a log as a struct that is compared by these columns first, and then by its values."""
    # Engines differ in whether a null in a struct is its least or its greatest value.
    values = [
        column
        for field in log.fields.names()
        for column in (F.col(field).isNotNull().alias(f"_has_{field}"), F.col(field))
    ]
    return F.struct(*first, *values)


def _value(stored: Column, number: Numeric | None) -> Column:
    """A number of steps in its unit."""
    if number is None:
        return stored
    numerator, denominator = number.step.as_integer_ratio()
    return stored.cast("double") * F.lit(float(numerator)) / F.lit(float(denominator))

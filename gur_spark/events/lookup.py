"""Attributes of items that events take at ingest, as the section ``join`` declares."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.config.logs import ItemLog, Join
from gur_spark.errors import TableError
from gur_spark.events.items import ordered_row
from gur_spark.tables.delta import Tables

_ITEM, _ROWS, _HELD = "item of the join", "rows of the item", "row that held"
"""Columns beside those of events. No field has such a name."""


def check_items(tables: Tables, join: Join) -> None:
    """Check that the attributes which events take are there.

    Raises:
        TableError: the log of items was not ingested yet, or not with these fields.
    """
    remedy = f"run ingest --log {join.log} (or ingest, which reads logs of items first)"
    if not tables.exists("items"):
        raise TableError(f"join takes {', '.join(join.take)} from items, and there is no table items yet: {remedy}")
    lacking = [name for name in join.take if name not in tables.read("items").columns]
    if lacking:
        raise TableError(f"join takes {', '.join(lacking)}, and the table items has no such column: {remedy}")


def with_attributes(tables: Tables, events: DataFrame, join: Join, log: ItemLog) -> DataFrame:
    """Events with the attributes that held of their items at their times.

    Unless ``join.late``, only rows of items count that had landed with the event or before, so the events are the same
    whenever they are ingested. An attribute is null where the item has no such row.

    Args:
        log: the log of items.
    """
    rows = tables.read("items").where(F.col("source") == join.log)
    # Few rows are about one item. As a list they are joined by equal items, and no event is doubled.
    listed = rows.groupBy(F.col("item").alias(_ITEM)).agg(
        F.collect_list(ordered_row(log, "valid_from", "landed_on")).alias(_ROWS)
    )
    beside = events.join(listed, F.col(join.on) == F.col(f"`{_ITEM}`"), "left")
    held = F.array_max(F.filter(F.col(f"`{_ROWS}`"), lambda row: _counts(row, join)))
    taken = [F.col(f"`{_HELD}`.{name}").alias(name) for name in join.take]
    return beside.withColumn(_HELD, held).select(*events.columns, *taken)


def _counts(row: Column, join: Join) -> Column:
    """Whether a row of items counts for an event."""
    valid = row["valid_from"] <= F.col("event_time")
    return valid if join.late else valid & (row["landed_on"] <= F.col("landed_on"))

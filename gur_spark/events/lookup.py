"""Attributes of items that events take at ingest, as the section ``join`` declares."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from gur_spark.config.logs import ItemLog, Join
from gur_spark.events.items import ordered_row
from gur_spark.tables.delta import Tables

_ITEM, _FROM, _UNTIL = "item of the join", "valid from", "valid until"
"""Columns of the intervals. No field has such a name."""


def with_attributes(tables: Tables, events: DataFrame, join: Join, log: ItemLog) -> DataFrame:
    """Events with the attributes that held of their items at their times, as far as ``items`` knows them now.

    An attribute is null where the item has no row that was valid at or before the event.

    Args:
        log: the log of items.

    Raises:
        TableError: there is no table ``items`` yet.
    """
    item, time = F.col(_ITEM), F.col("event_time")
    held = (F.col(join.on) == item) & (time >= F.col(_FROM)) & (F.col(_UNTIL).isNull() | (time < F.col(_UNTIL)))
    intervals = F.broadcast(_intervals(tables, join, log))
    return events.join(intervals, held, "left").select(*events.columns, *join.take)


def _intervals(tables: Tables, join: Join, log: ItemLog) -> DataFrame:
    """One row per item and moment at which its attributes change."""
    rows = tables.read("items", made_by="ingest").where(F.col("source") == join.log)
    newest = rows.groupBy("item", "valid_from").agg(F.max(ordered_row(log, "landed_on")).alias("newest"))
    following = F.lead("valid_from").over(Window.partitionBy("item").orderBy("valid_from"))
    return newest.select(
        F.col("item").alias(_ITEM),
        F.col("valid_from").alias(_FROM),
        following.alias(_UNTIL),
        *[F.col(f"newest.{name}").alias(name) for name in join.take],
    )

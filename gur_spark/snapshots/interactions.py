"""Events -> snapshots of interactions: one row per user and item, how often and when first and last.

The events are the same that the aggregates of the date are made of, in the window of ``interactions.window``.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.config.snapshots import Interactions
from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import InteractionManifest, Manifest
from gur_spark.features.declare.sequences import interaction_manifest
from gur_spark.models.kind import Form
from gur_spark.snapshots.making import make_snapshots
from gur_spark.snapshots.sequence_rows import file_by_file, whole_users
from gur_spark.snapshots.visible import MadeSnapshots
from gur_spark.tables.delta import Tables


def interaction_snapshots(
    tables: Tables,
    config: Config,
    dates: Collection[date],
    run_id: str,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
    again: bool = False,
) -> MadeSnapshots:
    """Write the interactions of some dates as ``interactions`` says, and make them visible; see ``make_snapshots``.

    One row per user and item with an event in the window. An event without an item does not count; items that are
    unknown or rare are one item, with id 1.

    Raises:
        ConfigError: the configuration has no section ``interactions``.
    """
    recipe = recipe_of(config.interactions, config.manifest())
    return make_snapshots(tables, config, recipe, dates, run_id, vocabulary_version, known_at, again)


def recipe_of(wanted: Interactions | None, events: Manifest) -> "InteractionRecipe":
    """How the configuration wants interactions of the events that its aggregates have.

    Raises:
        ConfigError: it has no section ``interactions``.
    """
    if wanted is None:
        raise ConfigError(
            "interactions: not given; name the field of the item, such as interactions: {field: item, window: 180}; "
            f"categories of events: {list(events.categorical)}"
        )
    return InteractionRecipe(interaction_manifest(events, wanted.field, wanted.window))


@dataclass(frozen=True)
class InteractionRecipe:
    """How events become interactions."""

    manifest: InteractionManifest
    form = Form.INTERACTIONS
    key = ("user_id", "item")
    row_group_rows = 1 << 16

    @property
    def what(self) -> str:
        return f"event with {self.manifest.field}"

    def counts(self) -> Column:
        """An event with an item counts; a log without the field has none."""
        return F.col(self.manifest.field).isNotNull()

    def narrow(self, encoded: DataFrame) -> DataFrame:
        """One row per user and item; times in microseconds."""
        time = F.unix_micros("event_time")
        grouped = encoded.groupBy("user_id", F.col(self.manifest.field).alias("item"))
        return grouped.agg(
            F.count(F.lit(1)).alias("count"), F.min(time).alias("first_time"), F.max(time).alias("last_time")
        )

    def files(self, ordered: Iterator[pa.RecordBatch], as_of: date) -> Iterator[pa.Table]:
        """Rows in the order of user and item; all rows of a user are in one file."""
        for rows in file_by_file(whole_users(ordered)):
            days = pa.array(np.full(rows.num_rows, np.datetime64(as_of, "D")))
            times = {
                name: rows[name].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
                for name in ("first_time", "last_time")
            }
            item = rows["item"].cast(pa.int32())
            yield pa.table({"user_id": rows["user_id"], "as_of": days, "item": item, "count": rows["count"], **times})

"""Columns that declared features derive from each event."""

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.plan import plan_of
from gur_spark.features.operations import Derived


def add_derived(events: DataFrame, manifest: Manifest) -> DataFrame:
    """Add the columns that declared features derive from each event, before categories become ids.

    Conditions see categories as text and numbers in their units.

    Raises:
        ConfigError: a condition does not parse, or names columns that do not exist.
    """
    derived = plan_of(manifest).derived()
    if not derived:
        return events
    steps = {f"_steps_{field.name}": F.col(field.name) for field in manifest.numeric}
    units = {f.name: F.col(f.name).cast("decimal(19,0)") * F.lit(f.step) for f in manifest.numeric}
    # Spark Connect refuses an empty list of columns.
    in_units = events.withColumns(steps).withColumns(units) if steps else events
    for name, column in derived.items():
        in_units = _derive(in_units, name, column)
    in_steps = {field.name: F.col(f"_steps_{field.name}") for field in manifest.numeric}
    return in_units.withColumns(in_steps).drop(*steps) if steps else in_units


def _derive(events: DataFrame, name: str, column: Derived) -> DataFrame:
    try:
        made = events.withColumn(name, F.expr(column.sql))
        # Reading one row makes every engine plan the expression now.
        made.select(name).limit(1).collect()
    except PySparkException as error:
        raise ConfigError(
            f"aggregates.features: condition {column.sql} cannot be used: {error}; columns: {events.columns}"
        ) from error
    return made

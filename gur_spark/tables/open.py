"""The tables of a pipeline, with the writer that fits the session's engine."""

from pyspark.sql import SparkSession

from gur_spark import storage
from gur_spark.config.tables import Tables as Places
from gur_spark.engines import is_sail
from gur_spark.tables.delta import Tables
from gur_spark.tables.paths import check_root


def open_tables(spark: SparkSession, places: Places) -> Tables:
    """Tables at the places that the part ``tables`` of a configuration names.

    Raises:
        TableError: the engine is Sail, and the root has a character that Sail takes for something else.
    """
    opened: type[Tables] = Tables
    if is_sail(spark):
        check_root(storage.absolute(places.root))
        # Imported on use: only Sail needs the library deltalake.
        from gur_spark.tables.delta_rs import DeltaRsTables

        opened = DeltaRsTables
    return opened(spark=spark, root=storage.absolute(places.root), catalog=places.catalog, database=places.database)

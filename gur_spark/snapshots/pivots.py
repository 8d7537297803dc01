"""The manifest of aggregates, with the values of pivots, which the vocabulary gives.

An id stays the same from fit to fit. So all versions of a vocabulary give the same columns, and a manifest its hash.
"""

from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError
from gur_spark.events.vocabulary import Vocabulary, read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.pivots import Pivot
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.tables.delta import Tables

_HINTS = 10_000


def manifest_with_pivots(config: Config, vocabulary: Vocabulary) -> Manifest:
    """The manifest of a pipeline's aggregates, whose pivots have the values that a vocabulary gives them.

    Raises:
        ConfigError: the vocabulary lacks a value, or has fewer values than a pivot takes, or two columns would have one
            name.
    """
    found = []
    for number, pivot in enumerate(config.aggregates.pivots):
        try:
            found.append(pivot.pivoted(_ids(vocabulary, pivot)))
        except ValueError as error:
            raise ConfigError(f"aggregates.pivots.{number}.{error}") from error
    try:
        return config.manifest(found)
    except ValueError as error:
        raise ConfigError(f"aggregates.{error}") from error


def newest_manifest(tables: Tables, config: Config) -> Manifest:
    """The manifest by the newest vocabulary, which is not read where there are no pivots.

    Raises:
        ConfigError: as ``manifest_with_pivots``.
        TableError: there is no vocabulary yet.
    """
    return manifest_with_pivots(config, read_vocabulary(tables)) if config.aggregates.pivots else config.manifest()


def _ids(vocabulary: Vocabulary, pivot: Pivot) -> dict[str, int]:
    """The values that the pivot takes, with their ids, and the first ones for a hint at a similar name."""
    of_field = vocabulary.frame.where((F.col("field") == pivot.by) & F.col("value").isNotNull())
    first = F.col("id") < FIRST_VALUE_ID + (pivot.top or _HINTS)
    found = of_field.where(first | F.col("value").isin(list(pivot.values)) if pivot.values else first).orderBy("id")
    return {row["value"]: row["id"] for row in found.select("value", "id").collect()}

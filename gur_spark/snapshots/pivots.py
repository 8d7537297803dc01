"""The values of pivots, which the vocabulary gives.

An id stays the same from fit to fit. So all versions of a vocabulary give the same columns, and a manifest its hash.
"""

from collections.abc import Sequence

from pyspark.sql import functions as F

from gur_spark.config.snapshots import Aggregates
from gur_spark.errors import ConfigError
from gur_spark.events.vocabulary import Vocabulary, read_vocabulary
from gur_spark.features.declare.pivots import Pivot, Pivoted
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.tables.delta import Tables

_HINTS = 10_000


def pivots_with_values(aggregates: Aggregates, vocabulary: Vocabulary) -> list[Pivoted]:
    """The pivots of a configuration with the values that a vocabulary gives them.

    Raises:
        ConfigError: the vocabulary lacks a value, or has fewer values than a pivot takes.
    """
    found = []
    for number, pivot in enumerate(aggregates.pivots):
        try:
            found.append(pivot.pivoted(_ids(vocabulary, pivot)))
        except ValueError as error:
            raise ConfigError(f"aggregates.pivots.{number}.{error}") from error
    return found


def pivots_in(tables: Tables, aggregates: Aggregates) -> Sequence[Pivoted]:
    """The pivots with their values in the newest vocabulary, which is not read where there are no pivots.

    Raises:
        ConfigError: as ``pivots_with_values``.
        TableError: there is no vocabulary yet.
    """
    return pivots_with_values(aggregates, read_vocabulary(tables)) if aggregates.pivots else ()


def _ids(vocabulary: Vocabulary, pivot: Pivot) -> dict[str, int]:
    """The values that the pivot takes, with their ids, and the first ones for a hint at a similar name."""
    of_field = vocabulary.frame.where((F.col("field") == pivot.by) & F.col("value").isNotNull())
    first = F.col("id") < FIRST_VALUE_ID + (pivot.top or _HINTS)
    found = of_field.where(first | F.col("value").isin(list(pivot.values)) if pivot.values else first).orderBy("id")
    return {row["value"]: row["id"] for row in found.select("value", "id").collect()}

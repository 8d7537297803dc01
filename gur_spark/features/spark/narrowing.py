"""The few narrow columns of each row that the kernel needs."""

from collections.abc import Mapping
from datetime import date, datetime
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.plan import plan_of
from gur_spark.features.kernel.packing import Packing
from gur_spark.features.kernel.partition import AGE, KNOWN
from gur_spark.features.spark.selection import last_landing, midnight
from gur_spark.features.states.attributes import HELD, HELD_KNOWN, HELD_LANDED, HELD_LOG
from gur_spark.features.states.tiles import Tiles


def packing_of(manifest: Manifest, tiles: Tiles, sizes: Mapping[str, int]) -> Packing:
    """Places of a row's age, categories and derived columns; its numbers stay columns of their own."""
    return Packing.of(
        {AGE: (tiles.units * tiles.unit_us).bit_length()}
        | {name: (sizes[name] - 1).bit_length() for name in manifest.categorical}
        | {name: derived.bits for name, derived in plan_of(manifest).derived().items()}
        | ({KNOWN: len(tiles.dates).bit_length()} if len(tiles.dates) > 1 else {})
    )


def narrow(
    encoded: DataFrame, manifest: Manifest, packing: Packing, tiles: Tiles, moments: Mapping[date, datetime]
) -> DataFrame:
    """The columns of each event that the kernel needs: user_id, packed words and numbers.

    Args:
        moments: as-of date -> moment until which landings count for it.
    """
    values = {name: F.col(name) for name in [*manifest.categorical, *plan_of(manifest).derived()]}
    values[AGE] = F.unix_micros(midnight(tiles.newest)) - F.unix_micros("event_time")
    values[KNOWN] = unknown_to(tiles, moments)
    words = [_word(packing, number, values).alias(name) for number, name in enumerate(packing.words)]
    return encoded.select("user_id", *words, *[field.name for field in manifest.numeric])


def _word(packing: Packing, number: int, values: Mapping[str, Column]) -> Column:
    shifted = [
        F.shiftleft(values[name].cast("BIGINT"), place.shift)
        for name, place in packing.places.items()
        if place.word == number
    ]
    return reduce(Column.bitwiseOR, shifted)


def narrow_attributes(
    encoded: DataFrame, manifest: Manifest, tiles: Tiles, moments: Mapping[date, datetime]
) -> DataFrame:
    """The columns of each row of attributes that the kernel needs, which rows of events do not have.

    There are few such rows, so nothing is packed.
    """
    log = F.array_position(F.array(*map(F.lit, manifest.attribute_logs)), F.col("source")) - 1
    return encoded.select(
        "user_id",
        (F.unix_micros(midnight(tiles.newest)) - F.unix_micros("event_time")).alias(HELD),
        log.cast("BIGINT").alias(HELD_LOG),
        F.unix_date("landed_on").cast("BIGINT").alias(HELD_LANDED),
        unknown_to(tiles, moments).cast("BIGINT").alias(HELD_KNOWN),
        *[F.col(field.name).cast("BIGINT").alias(field.name) for field in manifest.attributes],
    )


def unknown_to(tiles: Tiles, moments: Mapping[date, datetime]) -> Column:
    """Number of dates that may not know a row. A later date knows the landings of an earlier date and more."""
    unknown = [F.col("landed_on") > F.lit(last_landing(moments[day])) for day in tiles.dates[:-1]]
    return reduce(Column.__add__, [c.cast("INT") for c in unknown], F.lit(0))

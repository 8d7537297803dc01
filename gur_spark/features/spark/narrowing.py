"""Which rows of ``events`` a snapshot is made of, and what the kernel needs of each, in as few columns as can be."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import reduce

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.plan import plan_of
from gur_spark.features.kernel import AGE, KNOWN
from gur_spark.features.operations import Derived
from gur_spark.features.packing import Packing
from gur_spark.features.states.attributes import HELD, HELD_KNOWN, HELD_LANDED, HELD_LOG
from gur_spark.features.states.base import DAY_US
from gur_spark.features.states.tiles import Bands


def known_at(as_of: date, delay_days: int) -> datetime:
    """Until when landings count for a snapshot: as_of midnight UTC plus the delay."""
    return datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC) + timedelta(days=delay_days)


def event_rows(events: DataFrame, manifest: Manifest) -> DataFrame:
    """The rows that are events of the declared logs, without the columns that say what is known of a user."""
    if not manifest.logs:
        return events
    names = [log.name for log in manifest.logs]
    return events.where(F.col("source").isin(names)).drop(*[field.name for field in manifest.attributes])


def attribute_rows(events: DataFrame, manifest: Manifest) -> DataFrame:
    """The rows that say what is known of a user."""
    return events.where(F.col("source").isin(list(manifest.attribute_logs)) if manifest.attributes else F.lit(False))


def snapshot_events(events: DataFrame, known: Mapping[date, datetime], reach: int | None) -> DataFrame:
    """The union of ``S(as_of, known_at, w)`` of dates whose windows leave no gap: events in some date's longest window,
    of ``reach`` days (None: without an end), that had landed before some date's ``known_at``."""
    landed = F.col("landed_on") <= F.lit(last_landing(max(known.values())))
    inside = events.where((F.col("event_time") < midnight(max(known))) & landed)
    return inside if reach is None else inside.where(F.col("event_time") >= midnight(min(known) - timedelta(reach)))


def prepare(events: DataFrame, manifest: Manifest) -> DataFrame:
    """Add what the declared features derive from each event, while categories are text; numbers are in their units.

    Raises:
        ConfigError: a condition does not parse, or speaks of columns that are not there.
    """
    derived = plan_of(manifest).derived()
    if not derived:
        return events
    steps = {f"_steps_{field.name}": F.col(field.name) for field in manifest.numeric}
    units = {f.name: F.col(f.name).cast("decimal(19,0)") * F.lit(f.step) for f in manifest.numeric}
    # Spark Connect does not take no columns.
    in_units = events.withColumns(steps).withColumns(units) if steps else events
    for name, column in derived.items():
        in_units = _derive(in_units, name, column)
    in_steps = {field.name: F.col(f"_steps_{field.name}") for field in manifest.numeric}
    return in_units.withColumns(in_steps).drop(*steps) if steps else in_units


def _derive(events: DataFrame, name: str, column: Derived) -> DataFrame:
    try:
        made = events.withColumn(name, F.expr(column.sql))
        # One row is asked for, so that every engine plans the expression now.
        made.select(name).limit(1).collect()
    except PySparkException as error:
        raise ConfigError(
            f"aggregates.features: condition {column.sql} cannot be used: {error}; columns: {events.columns}"
        ) from error
    return made


def packing_of(manifest: Manifest, bands: Bands, sizes: Mapping[str, int]) -> Packing:
    """What a row's values take, but for its numbers."""
    return Packing.of(
        {AGE: (bands.days * DAY_US).bit_length()}
        | {name: (sizes[name] - 1).bit_length() for name in manifest.categorical}
        | {name: derived.bits for name, derived in plan_of(manifest).derived().items()}
        | ({KNOWN: len(bands.dates).bit_length()} if len(bands.dates) > 1 else {})
    )


def narrow(
    encoded: DataFrame, manifest: Manifest, packing: Packing, bands: Bands, known: Mapping[date, datetime]
) -> DataFrame:
    """What the kernel needs of each event, in as few and narrow columns as there can be."""
    values = {name: F.col(name) for name in [*manifest.categorical, *plan_of(manifest).derived()]}
    values[AGE] = F.unix_micros(midnight(bands.newest)) - F.unix_micros("event_time")
    values[KNOWN] = unknown_to(bands, known)
    words = [_word(packing, number, values).alias(name) for number, name in enumerate(packing.words)]
    return encoded.select("user_id", *words, *[field.name for field in manifest.numeric])


def _word(packing: Packing, number: int, values: Mapping[str, Column]) -> Column:
    shifted = [
        F.shiftleft(values[name].cast("BIGINT"), part.shift)
        for name, part in packing.parts.items()
        if part.word == number
    ]
    return reduce(Column.bitwiseOR, shifted)


def narrow_attributes(
    encoded: DataFrame, manifest: Manifest, bands: Bands, known: Mapping[date, datetime]
) -> DataFrame:
    """The same of ``attribute_rows``, in columns that events do not have: they are few."""
    log = F.array_position(F.array(*map(F.lit, manifest.attribute_logs)), F.col("source")) - 1
    return encoded.select(
        "user_id",
        (F.unix_micros(midnight(bands.newest)) - F.unix_micros("event_time")).alias(HELD),
        log.cast("BIGINT").alias(HELD_LOG),
        F.unix_date("landed_on").cast("BIGINT").alias(HELD_LANDED),
        unknown_to(bands, known).cast("BIGINT").alias(HELD_KNOWN),
        *[F.col(field.name).cast("BIGINT").alias(field.name) for field in manifest.attributes],
    )


def unknown_to(bands: Bands, known: Mapping[date, datetime]) -> Column:
    """To how many dates a row is not known. They know the same landings and more as time goes on."""
    unknown = [F.col("landed_on") > F.lit(last_landing(known[day])) for day in bands.dates[:-1]]
    return reduce(Column.__add__, [c.cast("INT") for c in unknown], F.lit(0))


def last_landing(known_at: datetime) -> date:
    """A landing counts from its midnight on; compared as a date, Parquet can skip by it."""
    return (known_at.astimezone(UTC) - timedelta(microseconds=1)).date()


def midnight(day: date) -> Column:
    return F.lit(f"{day} 00:00:00+00:00").cast("timestamp")

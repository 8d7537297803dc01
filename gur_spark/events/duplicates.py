"""Rows that are the same event: one of them stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.config.logs import RawLog
from gur_spark.events.quality import Tally


def deduplicate(accepted: DataFrame, others: DataFrame, log: RawLog, found: Tally) -> DataFrame:
    """Accepted rows without duplicates, and without events that other landings have.

    Among equal events the first landing's stays, or in a bulk load with ``keep: last`` the last one. With a key, rows
    of one landing are compared by their columns in order, and the least one stays, or the greatest.

    Args:
        others: events of other landings.
        found: counts and time range of the accepted rows.
    """
    if log.dedupe.policy == "none":
        return accepted
    unique = _one_each(accepted, log)
    if log.source.layout == "bulk":
        return unique
    key = _key(accepted, log)
    if "event_time" in key and found.first_us is not None and found.last_us is not None:
        first, last = (F.timestamp_micros(F.lit(us)) for us in (found.first_us, found.last_us))
        others = others.where(F.col("event_time").between(first, last))
    seen = others.select([F.col(name).alias(_seen(name)) for name in key])
    return unique.join(seen, _same(key), "left_anti")


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """Rows to write after corrections."""

    rows: DataFrame
    landings: Sequence[str]
    """Other landings, ISO dates, that lost a row, and whose remaining rows are among ``rows``."""


def correct(accepted: DataFrame, others: DataFrame, log: RawLog) -> Corrected:
    """Keep the last row of each key: the one with the greatest ``dedupe.order``, and then of the last landing."""
    unique, key = _one_each(accepted, log), _key(accepted, log)
    seen = others.select([F.col(name).alias(_seen(name)) for name in others.columns])
    pairs = unique.join(seen, _same(key))
    seen_is_later = _is_later(log.dedupe.order)
    stays = pairs.where(seen_is_later).select(key)
    losers = pairs.where(~seen_is_later).select([F.col(_seen(name)) for name in [*key, "landed_on"]]).distinct()
    landings = [row[0] for row in losers.select(_seen("landed_on")).distinct().collect()]
    kept = unique.join(stays.select([F.col(name).alias(_seen(name)) for name in key]), _same(key), "left_anti")
    if not landings:
        return Corrected(rows=kept, landings=())
    left = others.where(F.col("landed_on").isin(landings)).join(losers, _same([*key, "landed_on"]), "left_anti")
    return Corrected(rows=kept.unionByName(left), landings=[day.isoformat() for day in landings])


def _one_each(accepted: DataFrame, log: RawLog) -> DataFrame:
    """One row of each key."""
    key = _key(accepted, log)
    rest = [name for name in accepted.columns if name not in ("landed_on", *key)]
    grouped = accepted.groupBy(*key)
    last = log.dedupe.keep == "last"
    if rest or last:
        # The least struct is that of the first landing, and then the least by its columns: a total order.
        order = list(dict.fromkeys(name for name in (log.dedupe.order, "landed_on", *rest) if name))
        parts = [part for name in order for part in (F.col(name).isNotNull().alias(f"has {name}"), F.col(name))]
        chosen = (F.max if last else F.min)(F.struct(*parts)).alias("chosen")
        values = [F.col(f"chosen.{name}") for name in accepted.columns if name not in key]
        return grouped.agg(chosen).select(*key, *values).select(accepted.columns)
    # Spark aggregates a date by hashing, and a struct by sorting.
    return grouped.agg(F.min("landed_on").alias("landed_on")).select(accepted.columns)


def _is_later(order: str | None) -> Column:
    """Whether the row that was there comes after the new one; one without a value of the order comes first."""
    later = F.col(_seen("landed_on")) > F.col("landed_on")
    if order is None:
        return later
    seen, new = F.col(_seen(order)), F.col(order)
    greater = F.when(new.isNull(), seen.isNotNull()).when(seen.isNull(), F.lit(False)).otherwise(seen > new)
    return greater | (seen.eqNullSafe(new) & later)


def _key(accepted: DataFrame, log: RawLog) -> list[str]:
    return log.dedupe.key or [name for name in accepted.columns if name != "landed_on"]


def _seen(name: str) -> str:
    return f"seen {name}"


def _same(key: Sequence[str]) -> Column:
    return reduce(and_, [F.col(name).eqNullSafe(F.col(f"`{_seen(name)}`")) for name in key])

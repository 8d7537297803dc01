"""Events that another landing has, too: one of them stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.config.logs import RawLog
from gur_spark.events.quality import Tally
from gur_spark.events.unique import key_of


def new_events(unique: DataFrame, others: DataFrame, log: RawLog, found: Tally) -> DataFrame:
    """Unique rows without the events that other landings have.

    Args:
        others: events of other landings.
        found: counts and time range of the accepted rows.
    """
    key = key_of(log, unique.columns)
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


def correct(unique: DataFrame, others: DataFrame, log: RawLog) -> Corrected:
    """Keep the last row of each key: the one with the greatest ``dedupe.order``, and then of the last landing."""
    key = key_of(log, unique.columns)
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


def _is_later(order: str | None) -> Column:
    """Whether the row that was there comes after the new one; one without a value of the order comes first."""
    later = F.col(_seen("landed_on")) > F.col("landed_on")
    if order is None:
        return later
    seen, new = F.col(_seen(order)), F.col(order)
    greater = F.when(new.isNull(), seen.isNotNull()).when(seen.isNull(), F.lit(False)).otherwise(seen > new)
    return greater | (seen.eqNullSafe(new) & later)


def _seen(name: str) -> str:
    return f"seen {name}"


def _same(key: Sequence[str]) -> Column:
    return reduce(and_, [F.col(name).eqNullSafe(F.col(f"`{_seen(name)}`")) for name in key])

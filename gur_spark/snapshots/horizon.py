"""The days after a date: whether they are all there, and the events in them.

Training on what follows and judging by what follows ask the same of the log.
"""

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import GurError
from gur_spark.features.spark.selection import known_at, snapshot_events


def check_complete(
    events: DataFrame, config: Config, dates: list[date], horizon_days: int, error: type[GurError]
) -> None:
    """Refuse a date whose future is not all there: silence that is only missing data would pass for that of users.

    A log is known up to its last ``landed_on`` (the last daily landing, or a bulk load's last event), several logs up
    to that of the one which ends first, and what a day tells may land ``aggregates.delay_days`` later.

    Args:
        events: the events of the declared logs, without attributes.

    Raises:
        ``error``: naming the log that has no event, or the landing from which on the date could be used.
    """
    source = F.col("source") if "source" in events.columns else F.lit("")
    by_log = events.groupBy(source.alias("log")).agg(F.max("landed_on").alias("last"))
    ends: dict[str, date] = {row["log"]: row["last"] for row in by_log.collect()}
    silent = [log.name for log in config.manifest().logs if log.name not in ends]
    if silent:
        raise error(f"log {', '.join(silent)} has no events yet: its silence would pass for that of the users")
    if not ends:
        raise error("there are no events; run the ingest job first")
    landed = min(ends.values())
    ahead = timedelta(horizon_days + config.aggregates.delay_days - 1)
    for day in dates:
        if day + ahead > landed:
            raise error(
                f"the {horizon_days} days from {day} on are not all there: the log ends on {landed}; they are from the "
                f"landing of {day + ahead} on, and now those of dates up to {landed - ahead} are"
            )


def events_ahead(events: DataFrame, config: Config, as_of: date, horizon_days: int) -> DataFrame:
    """The events of ``[as_of, as_of + horizon_days)`` that had landed by the end plus the delay: later ones change no
    label."""
    ends = as_of + timedelta(horizon_days)
    return snapshot_events(events, {ends: known_at(ends, config.aggregates.delay_days)}, horizon_days)

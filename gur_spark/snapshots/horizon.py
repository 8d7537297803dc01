"""The days after a date: whether the log covers them, and the events in them.

Training on the future of a date and judging by it have the same requirements of the log.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import GurError
from gur_spark.features.spark.selection import known_at, snapshot_events

FEW = 0.01
"""Share of a log's rows that may stand far after the others by mistake."""


def check_complete(
    events: DataFrame, config: Config, dates: list[date], horizon_days: int, error: type[GurError]
) -> None:
    """Refuse a date whose future is not complete: missing data would pass for users who fell silent.

    A log is complete up to its last ``landed_on`` (the last daily landing, or a bulk load's last event) as ``log_end``
    tells it, and several logs up to the first of these. Events of a day may land ``aggregates.delay_days`` later.

    Args:
        events: the events of the declared logs, without attributes.

    Raises:
        ``error``: the message names the log that has no event, or the landing from which the date can be used.
    """
    source = F.col("source") if "source" in events.columns else F.lit("")
    by_day = events.groupBy(source.alias("log"), "landed_on").agg(F.count(F.lit(1)).alias("rows")).collect()
    rows_of: dict[str, dict[date, int]] = defaultdict(dict)
    for row in by_day:
        rows_of[row["log"]][row["landed_on"]] = row["rows"]
    ends = {log: log_end(rows, config.aggregates.landing_gap_days) for log, rows in rows_of.items()}
    silent = [log.name for log in config.manifest().logs if log.name not in ends]
    if silent:
        raise error(f"log {', '.join(silent)} has no events yet: users would pass for silent")
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


def log_end(rows_of: Mapping[date, int], gap_days: int) -> date:
    """The last day of a log, by its rows per day. A few rows far after the others stand for nothing.

    These are less than ``FEW`` of all rows, after more than ``gap_days`` days without any.
    """
    days, after = sorted(rows_of), 0
    end = days[-1]
    for earlier, day in reversed(list(pairwise(days))):
        after += rows_of[day]
        if after > FEW * sum(rows_of.values()):
            break
        if (day - earlier).days > gap_days:
            end = earlier
    return end


def check_cutoff(dates: Sequence[date], ahead_days: int, cutoff: date | None, error: type[GurError]) -> None:
    """Check that nothing that training on these dates sees reaches past its cutoff.

    Args:
        ahead_days: how many days from a snapshot's date on training sees.
        cutoff: the first date whose events it must not see.

    Raises:
        ``error``: naming the last date that could be trained on.
    """
    ahead = timedelta(ahead_days)
    for day in dates:
        if cutoff and day + ahead > cutoff:
            seen = f"the {ahead.days} days from {day} on reach" if ahead_days else f"the events before {day} reach"
            raise error(
                f"{seen} past the cutoff of training, {cutoff} (the first date of scoring and evaluation, or "
                f"training.cutoff); expected dates up to {cutoff - ahead}"
                + (", or fewer days that the model looks ahead" if ahead_days else "")
            )


def events_ahead(events: DataFrame, as_of: date, horizon_days: int, delay_days: int) -> DataFrame:
    """The events of ``[as_of, as_of + horizon_days)`` that had landed by the end plus ``aggregates.delay_days``.

    Events that land later change no label.
    """
    ends = as_of + timedelta(horizon_days)
    return snapshot_events(events, {ends: known_at(ends, delay_days)}, timedelta(horizon_days))

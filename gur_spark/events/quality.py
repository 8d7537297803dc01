"""Counts of staged rows by status and reason, and the refusal of landings with too many bad rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from gur_spark.config.fields import EventTime
from gur_spark.config.logs import AnyLog
from gur_spark.errors import TooManyBadRows
from gur_spark.events.parse import MICROS

SAMPLE_CHARS = 200
REASONS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class BadRows:
    """Rows that are rejected for one reason in one field."""

    reason: str
    field: str | None
    rows: int
    sample: str
    """Text of one of them."""
    time_text: str | None
    """Time of one of them, if times are out of bounds."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of staged rows."""

    accepted: int = 0
    """Accepted rows before duplicates are removed."""
    filtered: int = 0
    bad: Sequence[BadRows] = ()
    rounded: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    """First and last accepted event time, in microseconds since 1970.

    A datetime would be converted to the driver's time zone.
    """

    @property
    def quarantined(self) -> int:
        return sum(bad.rows for bad in self.bad)

    @property
    def rows(self) -> int:
        return self.accepted + self.filtered + self.quarantined

    def counts(self, written: int) -> dict[str, int]:
        """Counts for the run's row, given the number of events that were written."""
        return {
            "rows_read": self.rows,
            "accepted": written,
            "deduplicated": self.accepted - written,
            "filtered": self.filtered,
            "quarantined": self.quarantined,
            **self.rounded,
        }


def tally(staged: DataFrame, log: AnyLog) -> Tally:
    """Count the rows of ``parse_rows`` by status, and the rejected ones by reason and field.

    These are two jobs. With the samples, which are text, Spark would count all rows by sorting them instead of hashing.
    """
    rounded = [f"rounded_{field.name}" for field in log.fields.numeric]
    by_status = {row["status"]: row for row in staged.groupBy("status").agg(*_counts(rounded)).collect()}
    accepted = by_status.get("accepted")
    bad = _bad_rows(staged) if "rejected" in by_status else []
    return Tally(
        accepted=accepted["rows"] if accepted else 0,
        filtered=by_status["filtered"]["rows"] if "filtered" in by_status else 0,
        bad=sorted(bad, key=lambda bad: (-bad.rows, bad.reason, bad.field or "")),
        rounded={name: accepted[name] if accepted else 0 for name in rounded},
        first_us=accepted["first_us"] if accepted else None,
        last_us=accepted["last_us"] if accepted else None,
    )


def _counts(rounded: Sequence[str]) -> list[Column]:
    return [
        F.count(F.lit(1)).alias("rows"),
        F.unix_micros(F.min("event_time")).alias("first_us"),
        F.unix_micros(F.max("event_time")).alias("last_us"),
        *[F.count_if(name).alias(name) for name in rounded],
    ]


def _bad_rows(staged: DataFrame) -> list[BadRows]:
    found = (
        staged.where("status = 'rejected'")
        .groupBy("reason", "field")
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.min(F.substring("raw", 1, SAMPLE_CHARS)).alias("sample"),
            F.min("time_text").alias("time_text"),
        )
    )
    return [_bad(row) for row in found.collect()]


def refuse_bad_rows(found: Tally, log: AnyLog) -> None:
    """Refuse landings whose share of bad rows is above ``source.max_bad_share``.

    Raises:
        TooManyBadRows: the message has the reasons, a raw row of each, and a hint.
    """
    if found.quarantined <= log.source.max_bad_share * found.rows:
        return
    lines = [
        f"{found.quarantined:,} of {found.rows:,} rows are bad ({found.quarantined / found.rows:.1%}); "
        f"source.max_bad_share allows {log.source.max_bad_share:.1%}; nothing was written"
    ]
    for bad in found.bad[:REASONS_SHOWN]:
        where = f" in {bad.field}" if bad.field else ""
        lines.append(f"{bad.rows:,} x {bad.reason}{where}, such as: {bad.sample!r}")
        lines += _unit_hint(bad, log.fields.event_time)
    raise TooManyBadRows("\n  ".join(lines))


def _bad(row: Row) -> BadRows:
    return BadRows(
        reason=row["reason"],
        field=row["field"],
        rows=row["rows"],
        sample=row["sample"] or "",
        time_text=row["time_text"],
    )


def _unit_hint(bad: BadRows, times: EventTime) -> list[str]:
    """Hints at epoch units in which a time that is out of bounds would be inside them."""
    if bad.time_text is None or times.format not in MICROS:
        return []
    low, high = (datetime.combine(day, time(), UTC).timestamp() for day in (times.min, times.max))
    seconds = {unit: float(bad.time_text) * micros / 1e6 for unit, micros in MICROS.items()}
    units = [unit for unit, value in seconds.items() if low <= value < high and unit != times.format]
    column = times.column
    return [f"the values of '{column}' look like {unit}; fields.event_time.format is {times.format}" for unit in units]

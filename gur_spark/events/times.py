"""Instants from text: ISO 8601, counts since an origin, and patterns of letters such as ``dd/MM/yyyy HH:mm``."""

# N = rows

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Ints
from gur_spark.config.fields import COUNTED, EPOCH, EventTime
from gur_spark.config.time_pattern import TimePattern, time_pattern
from gur_spark.events.decimals import exact

MICROS = {
    "epoch_s": Decimal(1_000_000),
    "epoch_ms": Decimal(1_000),
    "epoch_us": Decimal(1),
    "epoch_ns": Decimal("0.001"),
    "epoch_m": Decimal(60_000_000),
    "epoch_h": Decimal(3_600_000_000),
    "epoch_d": Decimal(86_400_000_000),
    "excel": Decimal(86_400_000_000),
}
"""Format -> microseconds of one unit."""

EXCEL_ORIGIN = datetime(1899, 12, 30, tzinfo=UTC)
"""Day 0 of a spreadsheet, for days after February 1900."""

INSTANT, WALL_CLOCK = pa.timestamp("us", "UTC"), pa.timestamp("us")

_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?"
_OFFSET = r" ?(?:Z|UTC|GMT|[+-](?:0[0-9]|1[0-8])(?::?[0-5][0-9])?)"
_PARTS = (
    r"^(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]+)?)?)?"
    r"(?:[+-](?P<offset_hour>[0-9]{2}):?(?P<offset_minute>[0-9]{2})?)?"
)
_ELAPSED = r"^(?P<sign>-?)(?P<hours>[0-9]{1,9}):(?P<minutes>[0-5][0-9])(?::(?P<seconds>[0-5][0-9](?:\.[0-9]{1,6})?))?$"
_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
           "november", "december")  # fmt: skip


@dataclass(frozen=True)
class Instants:
    """Instants of N texts, and which of them are wall-clock times that the clocks skip (None: none is)."""

    instant_N: pa.TimestampArray
    skipped_N: pa.BooleanArray | None = None

    def skipped(self) -> pa.BooleanArray:
        """The skipped times, (N,)."""
        return pa.repeat(False, len(self.instant_N)) if self.skipped_N is None else self.skipped_N


def instants(texts: pa.StringArray, time: EventTime, origins: pa.StringArray | None = None) -> Instants:
    """Instants of texts by the first format that reads them; null where none does.

    A wall-clock time is one of ``time.time_zone``. Where the clocks show an hour twice, it is of the first one. An hour
    that they skip is moved on by the length of the gap.

    Args:
        origins: texts of ``time.origin_column``; the time is null where its origin is no time.
    """
    texts = pc.utf8_trim(texts, " ")
    if origins is not None:
        origin = instants(origins, time.of_origin())
        since = (_since(texts, format, EPOCH) for format in time.formats)
        counted = reduce(pc.coalesce, since).cast(pa.int64())
        return Instants(pc.add(counted, origin.instant_N.cast(pa.int64())).cast(INSTANT), origin.skipped_N)
    first, *others = (_instants(texts, format, time) for format in time.formats)
    for other in others:
        new = pc.and_(pc.is_null(first.instant_N), pc.is_valid(other.instant_N))
        skipped = pc.if_else(new, other.skipped(), first.skipped())
        first = Instants(pc.coalesce(first.instant_N, other.instant_N), skipped)
    return first


def _instants(texts: pa.StringArray, format: str, time: EventTime) -> Instants:
    if format in (*COUNTED, "excel"):
        return Instants(_since(texts, format, EXCEL_ORIGIN if format == "excel" else time.origin))
    if format == "iso8601":
        wall, absolute = _iso(texts)
    else:
        wall, absolute = _by_pattern(texts, time_pattern(format, time.pivot_year), time.pivot_year)
    if wall is None:
        return Instants(absolute)
    local, skipped = _in_zone(wall, time.time_zone)
    return Instants(local if absolute is None else pc.coalesce(absolute, local), skipped)


def _since(texts: pa.StringArray, format: str, origin: datetime) -> pa.TimestampArray:
    """Instants of numbers of a unit since an origin, rounded half to even to the microsecond."""
    if format == "elapsed":
        texts, format = _seconds(texts), "epoch_s"
    micros = MICROS[format]
    factor = pa.scalar(micros)
    # The product has 38 digits, the most that a decimal has. Days need many places for a microsecond.
    number = exact(texts, pa.decimal128(37 - factor.type.precision, 14 if micros > 10**9 else 9 if micros > 1 else 3))
    counted = pc.round(pc.multiply(number, factor), 0, "half_to_even")
    limit = pa.scalar(Decimal(2**62))
    inside = pc.fill_null(pc.and_(pc.less(counted, limit), pc.greater(counted, pc.negate(limit))), False)
    whole = pc.if_else(inside, counted, None).cast(pa.decimal128(38, 0))
    # A decimal is an integer of 128 bits. Within these limits the low 64 hold it.
    low = np.frombuffer(whole.buffers()[1], dtype=np.int64)[2 * whole.offset :: 2][: len(whole)]
    shifted = low + (origin - EPOCH) // timedelta(microseconds=1)
    return pa.array(shifted, mask=np.logical_not(inside.to_numpy(zero_copy_only=False))).cast(INSTANT)


def _seconds(texts: pa.StringArray) -> pa.StringArray:
    """Seconds of times that have elapsed, ``36:15`` or ``36:15:07.5``; null for other texts."""
    found = pc.extract_regex(texts, _ELAPSED)
    minutes = pc.add(
        pc.multiply(pc.struct_field(found, "hours").cast(pa.int64()), 60),
        pc.struct_field(found, "minutes").cast(pa.int64()),
    )
    second = pc.struct_field(found, "seconds")
    rest = exact(pc.if_else(pc.equal(second, ""), "0", second), pa.decimal128(18, 6))
    whole = pc.multiply(minutes, 60).cast(pa.decimal128(19, 0))
    sign = pc.struct_field(found, "sign")
    return pc.binary_join_element_wise(sign, pc.add(whole, rest).cast(pa.string()), "")


def _iso(texts: pa.StringArray) -> tuple[pa.TimestampArray | None, pa.TimestampArray | None]:
    """Wall-clock times and instants of ISO texts; None where all texts are of the other sort."""
    has_offset = pc.fill_null(pc.match_substring_regex(texts, f"^{_ISO}{_OFFSET}$"), False)
    if pc.all(has_offset).as_py():
        return None, _read(texts, INSTANT)
    without = pc.fill_null(pc.match_substring_regex(texts, f"^{_ISO}$"), False)
    wall = _read(pc.if_else(without, texts, None), WALL_CLOCK)
    return wall, _read(pc.if_else(has_offset, texts, None), INSTANT) if pc.any(has_offset).as_py() else None


def _read(texts: pa.StringArray, kind: pa.TimestampType) -> pa.TimestampArray:
    """Times of ISO texts; null where the calendar has no such day or the clock no such time.

    Arrow reads a column as a whole or not at all, so forms that it does not know are rewritten, and texts that are no
    time are left out, only where it refuses.
    """
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        plain = pc.replace_substring_regex(texts, r"(\.[0-9]{6})[0-9]+", r"\1")
    if kind.tz:
        plain = pc.replace_substring_regex(plain, r" ?(?:UTC|GMT)$", "Z")
        plain = pc.replace_substring_regex(plain, r" ([Z+-][0-9:]*)$", r"\1")
        plain = pc.replace_substring_regex(plain, r"^([0-9-]{10})([Z+-].*)$", r"\1T00:00\2")
    try:
        return plain.cast(kind)
    except pa.ArrowInvalid:
        return pc.if_else(_is_there(plain), plain, None).cast(kind)


def _is_there(texts: pa.StringArray) -> pa.BooleanArray:
    """Whether the calendar has the day, and the clock the time, of ISO texts; null for null."""
    found = pc.extract_regex(texts, _PARTS)

    def number(name: str) -> Ints:
        part = pc.fill_null(pc.struct_field(found, name), "")
        numbers: Ints = pc.if_else(pc.equal(part, ""), "0", part).cast(pa.int64()).to_numpy()
        return numbers

    year, month = number("year"), number("month")
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days = _DAYS[np.where(month <= 12, month, 0)] + ((month == 2) & leap)
    on_calendar = (year >= 1) & (number("day") >= 1) & (number("day") <= days)
    on_clock = (number("hour") <= 23) & (number("minute") <= 59) & (number("second") <= 59)
    in_world = (number("offset_hour") <= 18) & (number("offset_minute") <= 59)
    return pc.if_else(pc.is_valid(texts), pa.array(on_calendar & on_clock & in_world), None)


def _by_pattern(
    texts: pa.StringArray, pattern: TimePattern, pivot: int | None
) -> tuple[pa.TimestampArray | None, pa.TimestampArray | None]:
    """Wall-clock times, and instants of texts with an offset, by way of their ISO texts."""
    found = pc.extract_regex(texts, pattern.expression)
    part = {name: pc.struct_field(found, name) for name in pattern.groups}

    def padded(name: str) -> pa.StringArray | str:
        return pc.utf8_lpad(part[name], 2, "0") if name in part else "00"

    year = part["year"] if "year" in part else _year(part["short_year"], pivot or 0)
    month = _month(part["month_name"]) if "month_name" in part else padded("month")
    hour = _hour(part["half_hour"], part["half"]) if "half" in part else padded("hour")
    fraction = pc.utf8_slice_codeunits(part["fraction"], 0, 6) if "fraction" in part else "0"
    fraction = pc.if_else(pc.equal(fraction, ""), "0", fraction)
    offset = pc.replace_substring_regex(part["offset"], "^(?:UTC|GMT)$", "Z") if pattern.has_offset else ""
    clock = (hour, ":", padded("minute"), ":", padded("second"), ".", fraction, offset)
    iso = pc.binary_join_element_wise(year, "-", month, "-", padded("day"), "T", *clock, "")
    if not pattern.has_offset:
        return _read(iso, WALL_CLOCK), None
    without = pc.fill_null(pc.equal(offset, ""), False)
    wall = _read(pc.if_else(without, iso, None), WALL_CLOCK) if pc.any(without).as_py() else None
    return wall, _read(pc.if_else(without, None, iso), INSTANT)


def _year(texts: pa.StringArray, pivot: int) -> pa.StringArray:
    """Year of two digits among the hundred that begin with ``pivot``."""
    # A year that is missing is no year.
    digits = pc.if_else(pc.equal(texts, ""), None, texts)
    after = pc.subtract(pc.add(digits.cast(pa.int64()), 100), pivot % 100)
    year = pc.add(pc.subtract(after, pc.multiply(pc.divide(after, 100), 100)), pivot)
    return pc.utf8_lpad(year.cast(pa.string()), 4, "0")


def _month(names: pa.StringArray) -> pa.StringArray:
    """Number of an English name of a month, whole or its first three letters; null for other text."""
    known = [name[:letters] for letters in (3, 9) for name in _MONTHS]
    numbers = pa.array([f"{1 + number % 12:02d}" for number in range(len(known))])
    return numbers.take(pc.index_in(pc.utf8_lower(names), pa.array(known)))


def _hour(hours: pa.StringArray, halves: pa.StringArray) -> pa.StringArray:
    """Hour of the day from an hour of half a day, 1 to 12, and AM or PM."""
    # A time of day that is missing is midnight.
    hour = pc.if_else(pc.equal(hours, ""), "12", hours).cast(pa.int64())
    inside = pc.and_(pc.greater_equal(hour, 1), pc.less_equal(hour, 12))
    of_half = pc.if_else(pc.equal(hour, 12), 0, hour)
    of_day = pc.add(of_half, pc.if_else(pc.equal(pc.utf8_lower(halves), "pm"), 12, 0))
    return pc.utf8_lpad(pc.if_else(inside, of_day, None).cast(pa.string()), 2, "0")


def _in_zone(wall: pa.TimestampArray, zone: str) -> tuple[pa.TimestampArray, pa.BooleanArray | None]:
    """Instants of wall-clock times, and which of these the clocks skip."""
    if zone == "UTC":
        return wall.cast(INSTANT), None
    before = pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="earliest")
    after = pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="latest")
    instant, skipped = before.cast(INSTANT), pc.fill_null(pc.not_equal(before, after), False)
    if pc.any(skipped).as_py():
        offset = pc.subtract(pc.local_timestamp(before), instant.cast(WALL_CLOCK))
        instant = pc.if_else(skipped, pc.subtract(wall, offset).cast(INSTANT), instant)
    return instant, skipped

"""Parsing of raw text into typed fields, or into the reason why a row is rejected.

All steps are Column expressions with ``try_`` functions, so no row can stop the job. Each field has a value and a list
of problems in a fixed order. The first problem of the first field becomes the row's ``reason`` and ``field``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from operator import and_, mul, or_

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.config.fields import Categorical, EventTime, ItemId, Numeric, UserId
from gur_spark.config.logs import AnyLog, Filter, ItemLog, Source
from gur_spark.errors import ConfigError
from gur_spark.events.decimals import Decimals, decimals_of, half_even, number_type, step_type
from gur_spark.events.source import text_of

MICROS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}

# Digits are named one by one, because on Sail `\d` matches digits of any script.
ISO_DATE_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?"
ISO_OFFSET = r" ?(Z|[+-][0-9]{2}:?[0-9]{2})"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

# The product of two factors of this type is exact.
FACTOR = "DECIMAL(18,8)"


@dataclass(frozen=True, kw_only=True)
class ParsedField:
    """Expressions that make one column of ``events``."""

    name: str
    parts: dict[str, Column]
    """Intermediate columns by name. Later parts and the other expressions refer to them, so each is evaluated once."""
    value: Column
    problems: Sequence[tuple[str, Column]]
    """Pairs (reason code, condition) in the order in which they are checked."""
    rounded: Column | None = None
    """True where the value was rounded to a whole number of steps."""


def parse_rows(raw: DataFrame, log: AnyLog) -> DataFrame:
    """Parse a raw frame: one row per raw row, with its ``status`` (accepted, filtered or rejected).

    Columns are those of ``events`` (null unless accepted; of a log of items ``item`` takes the place of ``user_id``),
    ``status``, ``reason, field, source_file, raw`` (null unless rejected), ``time_text`` (only where the time is out of
    bounds) and ``rounded_<field>`` for each numeric field.
    """
    fields = event_fields(log, decimals_of(raw.sparkSession))
    typed = raw
    for level in zip_longest(*[field.parts.items() for field in fields]):
        typed = typed.withColumns(dict(part for part in level if part))
    judged = typed.withColumns({"fault": _fault(fields), "passes": _passes(log.filters)})
    status = (
        F.when(F.col("fault.reason").isNotNull() & (F.col("passes") | F.col("problem").isNotNull()), "rejected")
        .when(~F.col("passes"), "filtered")
        .otherwise("accepted")
    )
    return _select(judged.withColumn("status", status), fields, log)


def event_fields(log: AnyLog, decimal: Decimals) -> list[ParsedField]:
    """All columns of ``events`` (or ``items``) except ``landed_on``, in the order of the table."""
    return [
        _item(log.fields.item, log.source)
        if isinstance(log, ItemLog)
        else _user(log.fields.user_id, log.source, decimal),
        _time(log.fields.event_time, decimal),
        *(_categorical(field, log.source, decimal) for field in log.fields.categorical),
        *(_numeric(field, decimal) for field in log.fields.numeric),
    ]


def check_pattern(spark: SparkSession, time: EventTime) -> None:
    """Let Spark parse the datetime pattern.

    Raises:
        ConfigError: Spark does not know the pattern.
    """
    if time.format in MICROS or time.format == "iso8601":
        return
    try:
        spark.range(1).select(F.try_to_timestamp(F.lit("x"), F.lit(time.format))).collect()
    except PySparkException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"fields.event_time.format: expected epoch_s, epoch_ms, epoch_us, iso8601 or a Spark datetime pattern "
            f"such as dd/MM/yyyy HH:mm; got {time.format!r}: {reason}"
        ) from error


def _select(judged: DataFrame, fields: Sequence[ParsedField], log: AnyLog) -> DataFrame:
    accepted, rejected = F.col("status") == "accepted", F.col("status") == "rejected"
    # A bulk load has no landing dates, so each row counts as landed on its own day.
    bulk = log.source.layout == "bulk"
    landed_on = F.when(accepted, fields[1].value.cast("date")) if bulk else F.col("landed_on")
    bad_time = F.col("fault.reason") == "time_out_of_bounds"
    return judged.select(
        *[F.when(accepted, field.value).alias(field.name) for field in fields[:2]],
        landed_on.alias("landed_on"),
        *[F.when(accepted, field.value).alias(field.name) for field in fields[2:]],
        "status",
        *[F.when(rejected, F.col(f"fault.{name}")).alias(name) for name in ("reason", "field")],
        *[F.when(rejected, F.col(name)).alias(name) for name in ("source_file", "raw")],
        F.when(rejected & bad_time, text_of(log.fields.event_time.column)).alias("time_text"),
        *[F.when(accepted, f.rounded).alias(f"rounded_{f.name}") for f in fields if f.rounded is not None],
    )


def _fault(fields: Sequence[ParsedField]) -> Column:
    """Struct of the first reason and its field. A broken line comes before all fields."""
    line = F.when(F.col("problem").isNotNull(), _reason(F.col("problem"), F.lit(None).cast("string")))
    found = [
        F.when(condition, _reason(F.lit(code), F.lit(field.name)))
        for field in fields
        for code, condition in field.problems
    ]
    return F.coalesce(line, *found)


def _reason(code: Column, field: Column) -> Column:
    # The cast makes both nullable in all structs, because Sail requires equal types of alternatives.
    return F.struct(code.alias("reason"), field.alias("field")).cast("STRUCT<reason: STRING, field: STRING>")


def _passes(filters: Sequence[Filter]) -> Column:
    return reduce(and_, [_keeps(rule) for rule in filters], F.lit(True))


def _keeps(rule: Filter) -> Column:
    value = text_of(rule.column)
    match rule.keep:
        case "not_blank":
            return ~_blank(value)
        case "in":
            return F.coalesce(value.isin(rule.values), F.lit(False))
        case "not_in":
            return F.coalesce(~value.isin(rule.values), F.lit(True))


def _user(user: UserId, source: Source, decimal: Decimals) -> ParsedField:
    value = text_of(user.column)
    problems = [("null_user", _blank(value)), ("too_long", F.length(value) > source.max_value_chars)]
    if user.type == "string":
        return ParsedField(name="user_id", parts={}, value=F.trim(value), problems=problems)
    # Exports through a float column write 17850 as 17850.0.
    number = decimal(value, "DECIMAL(38,9)")
    whole = F.when(number == F.floor(number), number.try_cast("BIGINT"))
    parts = {"user": _by_point(value, whole, value.try_cast("BIGINT"))}
    problems.append(("bad_user_id", F.col("user").isNull()))
    return ParsedField(name="user_id", parts=parts, value=F.col("user"), problems=problems)


def _item(item: ItemId, source: Source) -> ParsedField:
    """The item's text, unchanged as a category of events has it."""
    value = text_of(item.column)
    problems = [("null_item", _blank(value)), ("too_long", F.length(value) > source.max_value_chars)]
    return ParsedField(name="item", parts={}, value=value, problems=problems)


def _time(time: EventTime, decimal: Decimals) -> ParsedField:
    value = F.trim(text_of(time.column))
    instant = F.col("instant")
    problems = [("bad_time", instant.isNull())]
    if _needs_zone(time):
        local, absolute = _wall_clock(value, time)
        shifted = F.to_utc_timestamp("local", time.time_zone)
        parts = {"local": local, "shifted": shifted, "instant": F.coalesce(absolute, "shifted")}
        # A wall-clock time that the clocks skip changes on the way to UTC and back.
        problems.append(("dst_gap", F.from_utc_timestamp("shifted", time.time_zone) != F.col("local")))
    else:
        parts = {"instant": _instant(value, time, decimal)}
    low, high = (F.lit(bound).cast("timestamp") for bound in (time.min, time.max))
    problems.append(("time_out_of_bounds", (instant < low) | (instant >= high)))
    return ParsedField(name="event_time", parts=parts, value=instant, problems=problems)


def _needs_zone(time: EventTime) -> bool:
    """Whether the text can be a wall-clock time of a zone other than UTC."""
    if time.time_zone == "UTC" or time.format in MICROS:
        return False
    pattern = re.sub("'[^']*'", "", time.format)
    return time.format == "iso8601" or re.search("[xXzZOV]", pattern) is None


def _instant(value: Column, time: EventTime, decimal: Decimals) -> Column:
    """Instant from text that has an offset, is in UTC, or counts from the epoch."""
    if time.format in MICROS:
        micros = F.lit(MICROS[time.format]).cast("BIGINT")
        whole = F.try_multiply(value.try_cast("BIGINT"), micros)
        # The type of the product, DECIMAL(38,9), holds every product.
        fraction = decimal(value, "DECIMAL(30,9)") * micros.cast("DECIMAL(7,0)")
        return F.timestamp_micros(_by_point(value, half_even(fraction).try_cast("BIGINT"), whole))
    if time.format == "iso8601":
        # Spark's cast accepts more, and reads '12:30' as a time of today.
        return F.when(value.rlike(f"^{ISO_DATE_TIME}({ISO_OFFSET})?$"), value.try_cast("TIMESTAMP"))
    return F.try_to_timestamp(value, F.lit(time.format))


def _wall_clock(value: Column, time: EventTime) -> tuple[Column, Column]:
    """Local time and instant, of which one is null: ISO text may have an offset or not."""
    none = F.lit(None).cast("TIMESTAMP")
    if time.format != "iso8601":
        return F.try_to_timestamp(value, F.lit(time.format)), none
    read = value.try_cast("TIMESTAMP")
    return (
        F.when(value.rlike(f"^{ISO_DATE_TIME}$"), read),
        F.when(value.rlike(f"^{ISO_DATE_TIME}{ISO_OFFSET}$"), read),
    )


def _categorical(field: Categorical, source: Source, decimal: Decimals) -> ParsedField:
    value = text_of(field.column)
    if field.sign:
        number = decimal(value, "DECIMAL(38,9)")
        sign = F.when(number < 0, "negative").when(number > 0, "positive").when(number == 0, "zero")
        parts = {f"sign of {field.name}": sign}
        found = F.col(f"`sign of {field.name}`")
        return ParsedField(
            name=field.name, parts=parts, value=found, problems=[("not_a_number", ~_blank(value) & found.isNull())]
        )
    kept = value
    if field.prefixes is not None:
        labels = [F.when(F.startswith(value, F.lit(p)), F.lit(label)) for p, label in field.prefixes.items()]
        kept = F.coalesce(*labels, F.lit(field.otherwise))
    too_long = F.length(value) > source.max_value_chars
    return ParsedField(name=field.name, parts={}, value=F.when(~_blank(value), kept), problems=[("too_long", too_long)])


def _numeric(field: Numeric, decimal: Decimals) -> ParsedField:
    """Number in whole steps, rounded half to even.

    The quotient of doubles differs by less than a hundredth from the exact quotient, so the whole number nearest to it
    is right or wrong by one. The exact remainder decides, and corrects it.
    """
    number, steps, rest = (F.col(f"`{part} of {field.name}`") for part in ("number", "steps", "rest"))
    step = F.lit(f"{field.step:f}").cast(step_type(field.step))
    quotient = number.cast("double") / F.lit(float(field.step))
    nearest = F.when(F.abs(quotient) < schema.MAX_STEPS + 0.5, F.floor(quotient + 0.5).cast("DECIMAL(15,0)"))
    texts = [text_of(column) for column in (field.column, field.times) if column]
    missing = reduce(or_, [_blank(value) for value in texts])
    looks_right = reduce(and_, [F.trim(value).rlike(NUMBER) for value in texts])
    twice = F.abs(rest) * 2
    beyond = (twice > step) | ((twice == step) & (steps.cast("BIGINT") % 2 != 0))
    correction = F.when(beyond, F.signum(rest.cast("double")).cast("BIGINT")).otherwise(F.lit(0))
    return ParsedField(
        name=field.name,
        parts={
            f"number of {field.name}": _number(field, texts, decimal),
            f"steps of {field.name}": nearest,
            f"rest of {field.name}": number - steps * step,
        },
        value=steps.cast("BIGINT") + correction,
        problems=[
            ("not_a_number", ~missing & steps.isNull() & ~looks_right),
            ("number_out_of_range", ~missing & steps.isNull()),
        ],
        rounded=(rest != 0) if field.transform == "none" else F.lit(False),
    )


def _number(field: Numeric, texts: Sequence[Column], decimal: Decimals) -> Column:
    """Value of the field as an exact decimal with up to 18 decimal places; null where missing or not a number."""
    kind = number_type(field.step)
    if len(texts) == 1:
        number = decimal(texts[0], kind)
    else:
        number = reduce(mul, [decimal(value, FACTOR) for value in texts]).try_cast(kind)
    if field.transform == "signed_log1p":
        value = number.cast("double")
        number = (F.signum(value) * F.log1p(F.abs(value))).try_cast(kind)
    return number


def _by_point(value: Column, fraction: Column, whole: Column) -> Column:
    """Choose ``fraction`` for text with a decimal point, else ``whole``: trying both casts is slow."""
    return F.when(F.contains(value, F.lit(".")), fraction).otherwise(whole)


def _blank(value: Column) -> Column:
    return value.isNull() | (F.trim(value) == "")

"""Exact decimals from text. ``decimals_of`` hides the differences between engines."""

from collections.abc import Callable
from decimal import Decimal

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.engines import is_sail
from gur_spark.events import sail

# Longer than any number in range. Java takes seconds to read a number of a million digits.
MAX_NUMBER_CHARS = 100

Decimals = Callable[[Column, str], Column]
"""Function that makes a decimal of a type from text; null where the text is no number."""


def decimals_of(spark: SparkSession) -> Decimals:
    """The function of the session's engine."""
    return _sail_decimal if is_sail(spark) else _decimal


def number_type(step: Decimal) -> str:
    """SQL type with room for MAX_STEPS steps and up to 18 decimal places, with 36 digits at most."""
    whole = len(str(int(schema.MAX_STEPS * step))) + 1
    places = min(18, 36 - whole)
    return f"DECIMAL({whole + places},{places})"


def step_type(step: Decimal) -> str:
    """SQL type that holds a step exactly."""
    places = max(0, -int(step.as_tuple().exponent))
    whole = max(1, step.adjusted() + 1)
    return f"DECIMAL({whole + places},{places})"


def _decimal(value: Column, kind: str) -> Column:
    return _short(value).try_cast(kind)


def _sail_decimal(value: Column, kind: str) -> Column:
    return sail.plain_number(_short(value)).try_cast(kind)


def _short(value: Column) -> Column:
    return F.when(F.length(value) <= MAX_NUMBER_CHARS, value)


def half_even(value: Column) -> Column:
    """The whole number nearest to a decimal; a half goes to the even one."""
    below, half = F.floor(value), F.lit(Decimal("0.5"))
    rest = value - below
    up = (rest > half) | ((rest == half) & (below % 2 != 0))
    return below + F.when(up, 1).otherwise(0)

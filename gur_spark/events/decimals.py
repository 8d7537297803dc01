"""Text to exact decimals, and their types: what differs between the engines is in ``decimals_of``."""

from collections.abc import Callable
from decimal import Decimal

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.engines import is_sail
from gur_spark.events import sail

# Longer than any number in range: Java needs seconds to read a number of a million digits.
MAX_NUMBER_CHARS = 100

Decimals = Callable[[Column, str], Column]
"""How the engine makes a text a decimal of a type; null where it is none."""


def decimals_of(spark: SparkSession) -> Decimals:
    return _sail_decimal if is_sail(spark) else _decimal


def number_type(step: Decimal) -> str:
    """Decimal with room for MAX_STEPS steps and, up to 36 digits in all, 18 places behind the point."""
    whole = len(str(int(schema.MAX_STEPS * step))) + 1
    places = min(18, 36 - whole)
    return f"DECIMAL({whole + places},{places})"


def step_type(step: Decimal) -> str:
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
    """The nearest whole number of a decimal."""
    below, half = F.floor(value), F.lit(Decimal("0.5"))
    rest = value - below
    up = (rest > half) | ((rest == half) & (below % 2 != 0))
    return below + F.when(up, 1).otherwise(0)

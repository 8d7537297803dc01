"""Texts become whole steps as Python's decimals do."""

import random
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pyarrow as pa
import pytest

from gur_spark import schema
from gur_spark.events import decimals

EXACT = Context(prec=200)


def texts(step: Decimal, count: int) -> list[str]:
    """Numbers on the grid of steps, on its halves and a hair beside them, with and without exponents."""
    random.seed(1)
    made = []
    for _ in range(count):
        whole = random.randrange(-(10 ** random.randint(1, 12)), 10 ** random.randint(1, 12))
        beside = random.choice(["0", "0", "0.5", "0.500000001", "0.499999999", "0.25"])
        value = EXACT.multiply(EXACT.add(Decimal(whole), Decimal(beside)), step)
        made.append(f"{value:E}" if random.random() < 0.3 else f"{value:f}")
    long = ["0." + "3" * 90, "0" * 90 + "7", "1e-400", "8796093022208", "1e13"]
    return [*made, *long, "1e3", ".5", "-5.", "+1.5E+1", "0e5", "-0", "00.50"]


def steps(text: str, step: Decimal) -> int | None:
    """The rule: the nearest whole number of steps, a half to the even one; none beyond the range."""
    quotient = EXACT.divide(Decimal(text.strip()), step).quantize(Decimal(1), ROUND_HALF_EVEN, EXACT)
    return int(quotient) if abs(quotient) <= schema.MAX_STEPS else None


@pytest.mark.parametrize("step", ["0.01", "1", "1000", "0.25", "0.3", "0.000001", "7"])
def test_a_number_is_counted_in_steps_as_exact_decimals_count_it(step: str) -> None:
    size = Decimal(step).normalize()
    given = texts(Decimal(step), 2000)
    found, rounded = decimals.steps(decimals.exact(pa.array(given), decimals.number_type(size)), size)
    expected = [steps(text, Decimal(step)) for text in given]
    assert found.to_pylist() == expected
    for text, count, was in zip(given, expected, rounded.to_pylist(), strict=True):
        # As many decimals as the type has for the step: a text with more is rounded before it is counted.
        if count is not None and "e-400" not in text and len(text) < 40:
            assert was == (Decimal(text) != EXACT.multiply(Decimal(count), size)), text

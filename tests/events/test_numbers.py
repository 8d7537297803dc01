"""Texts become whole steps as Python's decimals do, on every engine that the tests run on."""

import random
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import pytest

from gur_spark import schema
from gur_spark.events.parse import parse_rows

pytestmark = pytest.mark.both_engines

EXACT = Context(prec=200)
RAW = "source_file STRING, landed_on DATE, raw STRING, problem STRING, `text user` STRING, `text time` STRING, "


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
    return [*made, *long, "1e3", ".5", "-5.", "+1.5E+1", " 2 ", "0e5", "-0", "00.50"]


def steps(text: str, step: Decimal) -> int | None:
    """The rule: the nearest whole number of steps, a half to the even one; none beyond the range."""
    quotient = EXACT.divide(Decimal(text.strip()), step).quantize(Decimal(1), ROUND_HALF_EVEN, EXACT)
    return int(quotient) if abs(quotient) <= schema.MAX_STEPS else None


@pytest.mark.parametrize("step", ["0.01", "1", "1000", "0.25", "0.3", "0.000001", "7"])
def test_a_number_is_counted_in_steps_as_exact_decimals_count_it(step: str, tables: Any, make_config: Any) -> None:
    fields = {"numeric": [{"name": "amount", "column": "amount", "step": float(step)}], "categorical": []}
    config = make_config({"fields": fields})
    given = texts(Decimal(step), 200)
    rows = [("f", None, text, None, str(n), "2024-01-01", text) for n, text in enumerate(given)]
    raw = tables.spark.createDataFrame(rows, f"{RAW} `text amount` STRING")
    found = {row.user_id: row.amount for row in parse_rows(raw, config).where("status = 'accepted'").collect()}
    # As many decimals as the type has for the step: a text with more is rounded before it is counted.
    expected = {n: steps(text, Decimal(step)) for n, text in enumerate(given)}
    assert found == {n: count for n, count in expected.items() if count is not None}

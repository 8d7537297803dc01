"""Exact numbers from text, counted in steps."""

# N = rows

from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark import schema
from gur_spark.arrays import Array, Ints

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""Text of a number. Digits are named one by one, because other scripts have digits, too."""

MAX_NUMBER_CHARS = 100
"""A longer text is no number. Reading a number of a million digits takes seconds."""

PLACES = 18
"""Decimal places of a number before it is counted in steps; more are rounded."""

AnyDecimal: TypeAlias = Any
"""Type of Arrow decimals of 128 or 256 bits."""

SIGNED = pa.decimal256(76, 38)
"""Type of a number of which only the sign counts."""

FACTOR = pa.decimal256(37, 18)
"""Type of a factor. The product of two is exact."""

_EXACT = Context(prec=250)


def number_type(step: Decimal) -> pa.Decimal128Type:
    """Type with room for ``MAX_STEPS`` steps and up to 18 decimal places, with 36 digits at most."""
    whole = len(str(int(schema.MAX_STEPS * step))) + 1
    places = min(PLACES, 36 - whole)
    return pa.decimal128(whole + places, places)


def exact(texts: pa.StringArray, kind: AnyDecimal) -> pa.Array:
    """Decimals of texts, (N,); null where a text is no number or is out of the type's range.

    A text with more decimal places than the type has is rounded half up.
    """
    whole, places = kind.precision - kind.scale, kind.scale
    digits = rf"[0-9]{{1,{whole}}}(?:\.[0-9]{{0,{places}}})?|\.[0-9]{{1,{places}}}"
    plain = pc.fill_null(pc.match_substring_regex(texts, rf"^[+-]?(?:{digits})$"), False)
    odd = pc.and_(pc.is_valid(texts), pc.invert(plain))
    if not pc.any(odd).as_py():
        return texts.cast(kind)
    slow = pa.array([_exact(text, kind) for text in texts.filter(odd).to_pylist()], kind)
    return pc.replace_with_mask(pc.if_else(plain, texts, None).cast(kind), odd, slow)


def _exact(text: str, kind: AnyDecimal) -> Decimal | None:
    if len(text) > MAX_NUMBER_CHARS or not text.isascii() or "_" in text:
        return None
    try:
        number = Decimal(text)
        if not number.is_finite() or number.adjusted() > kind.precision:
            return None
        number = number.quantize(Decimal(1).scaleb(-kind.scale), ROUND_HALF_UP, _EXACT)
    except InvalidOperation:
        return None
    return number if number.adjusted() < kind.precision - kind.scale else None


def product(first: pa.Array, second: pa.Array, *, kind: pa.Decimal128Type) -> pa.Array:
    """Products of two ``FACTOR`` arrays, (N,), rounded half up to the type's places; null beyond its range."""
    exact = pc.multiply(first, second)
    limit = 10.0 ** (kind.precision - kind.scale) * (1 - 1e-12)
    inside = pc.fill_null(pc.less(pc.abs(exact.cast(pa.float64())), limit), False)
    rounded = pc.round(exact, kind.scale, "half_towards_infinity") if kind.scale < exact.type.scale else exact
    return pc.if_else(inside, rounded, None).cast(kind)


def steps(number: pa.Array, step: Decimal) -> tuple[pa.Int64Array, pa.BooleanArray]:
    """Nearest whole number of steps of each decimal, a half to the even one, and whether it was rounded, (N,) each.

    The quotient of doubles differs by less than a hundredth from the exact quotient, so the whole number nearest to it
    is right or wrong by one. The exact remainder decides, and corrects it. Null beyond ``MAX_STEPS``.
    """
    step = Decimal(f"{step:f}")
    quotient_N = number.cast(pa.float64()).fill_null(np.nan).to_numpy() / float(step)
    with np.errstate(invalid="ignore"):
        inside_N = np.abs(quotient_N) < schema.MAX_STEPS + 0.5
    nearest_N = np.floor(np.where(inside_N, quotient_N, 0.0) + 0.5).astype(np.int64)
    taken = pc.multiply(pa.array(nearest_N).cast(pa.decimal128(19, 0)), pa.scalar(step)).cast(number.type)
    rest = pc.subtract(pc.if_else(pa.array(inside_N), number, None), taken)
    rounded = pc.fill_null(pc.not_equal(rest, pa.scalar(Decimal(0), rest.type)), False)
    if pc.any(rounded).as_py():
        nearest_N = nearest_N + _correction(rest, nearest_N, step)
    return pa.array(nearest_N, mask=~(inside_N & (np.abs(nearest_N) <= schema.MAX_STEPS))), rounded


def _correction(rest: pa.Array, nearest_N: Ints, step: Decimal) -> Ints:
    """One, zero or minus one, by which the nearest whole number is wrong, (N,)."""
    half, size = pa.scalar(step / 2), pc.abs(rest)
    beyond_N = pc.fill_null(pc.greater(size, half), False).to_numpy(zero_copy_only=False)
    tie_N = pc.fill_null(pc.equal(size, half), False).to_numpy(zero_copy_only=False)
    sign_N: Array = pc.sign(rest.cast(pa.float64())).fill_null(0).to_numpy()
    correction_N: Ints = np.where(beyond_N | (tie_N & (nearest_N % 2 != 0)), sign_N, 0).astype(np.int64)
    return correction_N


def logarithms(number: pa.Array, step: Decimal) -> pa.Int64Array:
    """``sign(x) ln(1 + |x|)`` of each decimal in steps, (N,); null beyond ``MAX_STEPS``."""
    value_N = number.cast(pa.float64()).fill_null(np.nan).to_numpy()
    steps_N = np.rint(np.sign(value_N) * np.log1p(np.abs(value_N)) / float(step))
    with np.errstate(invalid="ignore"):
        inside_N = np.abs(steps_N) <= schema.MAX_STEPS
    return pa.array(np.where(inside_N, steps_N, 0).astype(np.int64), mask=~inside_N)

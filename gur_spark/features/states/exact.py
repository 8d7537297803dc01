"""Sums of integers that are exact, or are refused.

numpy's fast grouped sum (``bincount`` with weights) adds in float64, which is exact while every partial sum stays below
2^53. Larger numbers are cut into limbs whose sums do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gur_spark.arrays import Ints

_EXACT_FLOAT = 2**53
_ROOM = 2**62
"""Sums are refused from here, one bit before int64 could wrap."""
_LIMB = 26
_BASE = 40
"""A sum of squares is high * 2^40 + low."""
_MASK = (1 << _BASE) - 1


def exact_sums(slot_N: Ints, x_N: Ints, counts: Ints) -> Ints:
    """Sum of ``x`` per slot as int64.

    A sum beyond +-2^62 is clamped there, and ``overflow`` finds it.

    Args:
        counts: number of rows per slot.
    """
    if int(np.abs(x_N).max()) * int(counts.max()) < _EXACT_FLOAT:
        return np.bincount(slot_N, weights=x_N, minlength=len(counts)).astype(np.int64)
    low = np.bincount(slot_N, weights=x_N & ((1 << _LIMB) - 1), minlength=len(counts)).astype(np.int64)
    high = exact_sums(slot_N, x_N >> _LIMB, counts)
    near = np.abs(high.astype(np.float64) * 2.0**_LIMB + low)
    clamped = np.where(high < 0, -_ROOM, _ROOM)
    return np.where(near >= _ROOM, clamped, (np.where(near >= _ROOM, 0, high) << _LIMB) + low)


def overflow(state: Ints, added: Ints) -> int | None:
    """The first slot whose sum would leave the exact range, or None. Both arrays must be within +-2^62."""
    beyond = np.abs(state + added) >= _ROOM
    return int(np.argmax(beyond)) if beyond.any() else None


def too_large(sums: Any) -> int | None:
    """The first slot whose sum, given in float64, is outside the exact range, or None."""
    beyond = np.abs(sums).reshape(-1) >= _ROOM
    return int(np.argmax(beyond)) if beyond.any() else None


def row_overflow(state: Any) -> int | None:
    """The first slot of the first row whose running sums could leave the exact range, or None."""
    beyond = np.abs(state.astype(np.float64)).sum(axis=1) >= _ROOM
    return int(np.argmax(beyond)) * state.shape[1] if beyond.any() else None


@dataclass
class SquareSum:
    """Sums of squares in two limbs, ``high * 2^40 + low`` with 0 <= low < 2^40.

    Equal sums have equal limbs.
    """

    high: Ints
    low: Ints

    @classmethod
    def of(cls, slot_N: Ints, x_N: Ints, counts: Ints) -> "SquareSum":
        """Sum of squares per slot, for |x| <= 2^43."""
        largest = int(np.abs(x_N).max())
        if largest**2 * int(counts.max()) < _ROOM:
            total = exact_sums(slot_N, x_N * x_N, counts)
            return cls(total >> _BASE, total & _MASK)
        # x = a 2^20 + b: x^2 = a^2 2^40 + 2ab 2^20 + b^2
        a_N, b_N = x_N >> 20, x_N & ((1 << 20) - 1)
        aa = exact_sums(slot_N, a_N * a_N, counts)
        ab = exact_sums(slot_N, a_N * b_N, counts)
        bb = exact_sums(slot_N, b_N * b_N, counts)
        low = ((ab & ((1 << 19) - 1)) << 21) + (bb & _MASK)
        return cls(aa + (ab >> 19) + (bb >> _BASE) + (low >> _BASE), low & _MASK)

    def overflow(self, added: "SquareSum") -> int | None:
        return overflow(self.high.reshape(-1), added.high)

    def add(self, other: "SquareSum") -> None:
        low = self.low.reshape(-1) + other.low
        self.high.reshape(-1)[:] += other.high + (low >> _BASE)
        self.low.reshape(-1)[:] = low & _MASK

    def map(self, rearrange: Callable[[Any], Any]) -> "SquareSum":
        """Both limbs after the same rearrangement or sum, with the carry moved to the high limb."""
        low = rearrange(self.low)
        return SquareSum(rearrange(self.high) + (low >> _BASE), low & _MASK)

    def cumulative(self) -> "SquareSum":
        """Running sums over the last axis."""
        low = np.cumsum(self.low, axis=-1)
        return SquareSum(np.cumsum(self.high, axis=-1) + (low >> _BASE), low & _MASK)


def std_steps(count: Ints, total: Ints, squares: SquareSum) -> Any:
    """``count`` times the population standard deviation: sqrt(n * sum(x^2) - sum(x)^2), from exact integers.

    Small values stay in int64; the rest takes Python's integers, with the same result.
    """
    small = (
        (squares.high < (1 << 21))
        & (np.abs(total) < (1 << 31))
        & (count.astype(np.float64) * (squares.high * 2.0**_BASE + squares.low) < _ROOM)
    )
    spread = np.zeros(count.shape, np.float64)
    n, s = count[small], total[small]
    spread[small] = n * ((squares.high[small] << _BASE) + squares.low[small]) - s * s
    large = ~small
    if large.any():
        high, low = squares.high[large].astype(object), squares.low[large].astype(object)
        exact = count[large].astype(object) * (high * 2**_BASE + low) - total[large].astype(object) ** 2
        spread[large] = exact.astype(np.float64)
    return np.sqrt(spread)

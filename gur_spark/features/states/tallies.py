"""Number of events per class (a sign, a bin, an hour), and sums of powers.

Legend of array shapes: N = rows, G = groups, B = tiles, W = windows of a date, K = classes or limbs, S = slots.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.states.advance import ArrayRules, per_tile
from gur_spark.features.states.base import State, ValueColumn, grown
from gur_spark.features.states.groups import Groups, PlacedRows, as_numpy
from gur_spark.features.states.tiles import DateWindows, Tiles
from gur_spark.schema import MAX_STEPS


class ClassCounts(State):
    """Number of events per group, tile and class."""

    stored: ClassVar[ArrayRules] = {"count_GBK": per_tile()}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn, classes: int) -> None:
        super().__init__(groups, tiles, value)
        self.per_group = 8 * classes
        self.count_GBK = np.zeros((0, len(tiles), classes), np.int64)

    @abstractmethod
    def classes(self, rows: PlacedRows) -> Ints:
        """Class of each row, from 0 to K - 1. Every row has a value."""

    def _add(self, rows: PlacedRows) -> None:
        rows = rows.present(str(self.value.column))
        slot_N = rows.slot_N * self.count_GBK.shape[2] + self.classes(rows)
        self.count_GBK += np.bincount(slot_N, minlength=self.count_GBK.size).reshape(self.count_GBK.shape)

    def _view(self, windows: DateWindows) -> Ints:
        """Number of events per window and class, (G, W, K)."""
        return np.cumsum(windows.by_part(self.count_GBK), axis=1)

    def _grow(self) -> None:
        self.count_GBK = grown(self.count_GBK, len(self.groups), 0)


class Signs(ClassCounts):
    """Number of values below, equal to and above zero."""

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value, 3)

    def classes(self, rows: PlacedRows) -> Ints:
        return np.sign(as_numpy(rows.table[self.value.column])) + 1


class Bins(ClassCounts):
    """Number of values between declared edges: class k holds values from edge k - 1 to below edge k."""

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn, edges: Sequence[float]) -> None:
        super().__init__(groups, tiles, value, len(edges) + 1)
        assert value.numeric is not None
        # Values are compared as whole steps: an edge is the first step that is not below it.
        exact = [Fraction(str(edge)) / Fraction(value.numeric.step) for edge in edges]
        self._edges = np.array([min(max(-(-edge // 1), -MAX_STEPS), MAX_STEPS + 1) for edge in exact], np.int64)

    def classes(self, rows: PlacedRows) -> Ints:
        return np.searchsorted(self._edges, as_numpy(rows.table[self.value.column]), side="right")


class Clock(ClassCounts):
    """Number of events per hour of the day or day of the week, which the rows name."""

    def classes(self, rows: PlacedRows) -> Ints:
        return as_numpy(rows.table[self.value.column])


@dataclass(frozen=True)
class Powers:
    """Count and sums of x, x^2, x^3 and x^4 in a date's windows, as Python integers, (G, W)."""

    count_GW: Any
    sums: tuple[Any, ...]

    @cached_property
    def spread_GW(self) -> Any:
        """Variance times n^2."""
        s1, s2, *_ = self.sums
        return self.count_GW * s2 - s1**2

    @cached_property
    def skew_GW(self) -> Any:
        """Third central moment times n^3."""
        n, (s1, s2, s3, _) = self.count_GW, self.sums
        return n * n * s3 - 3 * n * s1 * s2 + 2 * s1**3

    @cached_property
    def kurtosis_GW(self) -> Any:
        """Fourth central moment times n^4."""
        n, (s1, s2, s3, s4) = self.count_GW, self.sums
        return n**3 * s4 - 4 * n * n * s1 * s3 + 6 * n * s1 * s1 * s2 - 3 * s1**4


class PowerSums(State):
    """Exact sums of powers up to the fourth.

    A power is cut into limbs of 22 bits, and each limb has its own sum. Limbs of 2^40 events fit into an int64.
    """

    _BITS = 22
    _LIMBS = (2, 4, 6, 8)
    per_group = 8 * (1 + sum(_LIMBS))
    stored: ClassVar[ArrayRules] = {"_sum_GBK": per_tile()}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value)
        self._sum_GBK = np.zeros((0, len(tiles), 1 + sum(self._LIMBS)), np.int64)

    def _add(self, rows: PlacedRows) -> None:
        rows = rows.present(str(self.value.column))
        slots = self._sum_GBK.shape[0] * self._sum_GBK.shape[1]
        sum_SK = self._sum_GBK.reshape(slots, self._sum_GBK.shape[2])
        sum_SK[:, 0] += np.bincount(rows.slot_N, minlength=slots)
        x_N = as_numpy(rows.table[self.value.column])
        x = [np.abs(x_N) & self._mask, np.abs(x_N) >> self._BITS]
        power, place = x, 1
        for exponent, limbs in enumerate(self._LIMBS, 1):
            power = x if exponent == 1 else self._times(power, x)
            for limb_N in power:
                if limb_N.any():
                    signed_N = limb_N * np.sign(x_N) if exponent % 2 else limb_N
                    # A limb is below 2^22, so a chunk's sum is exact in float64.
                    sum_SK[:, place] += np.bincount(rows.slot_N, signed_N, minlength=slots).astype(np.int64)
                place += 1
            assert len(power) == limbs

    def _view(self, windows: DateWindows) -> Powers:
        sum_GWK = np.cumsum(windows.by_part(self._sum_GBK), axis=1).astype(object)
        sums, place = [], 1
        for limbs in self._LIMBS:
            sums.append(sum(sum_GWK[..., place + k] * (1 << (self._BITS * k)) for k in range(limbs)))
            place += limbs
        return Powers(sum_GWK[..., 0], tuple(sums))

    def _grow(self) -> None:
        self._sum_GBK = grown(self._sum_GBK, len(self.groups), 0)

    @property
    def _mask(self) -> int:
        return (1 << self._BITS) - 1

    def _times(self, a: list[Ints], b: list[Ints]) -> list[Ints]:
        """Product of two numbers in limbs, again with limbs below 2^22."""
        out = [np.zeros(len(b[0]), np.int64) for _ in range(len(a) + len(b))]
        for i, x_N in enumerate(a):
            for j, y_N in enumerate(b):
                out[i + j] += x_N * y_N
        for k in range(len(out) - 1):
            out[k + 1] += out[k] >> self._BITS
            out[k] &= self._mask
        return out

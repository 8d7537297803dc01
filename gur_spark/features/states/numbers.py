"""Count, sum, sum of squares, minimum and maximum of a numeric field, exact, in steps.

Legend of array shapes: N = rows, G = groups, B = tiles, W = windows of a date.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.errors import AggregateOverflow
from gur_spark.features.states.advance import Advance, ArrayRules, per_tile
from gur_spark.features.states.base import State, ValueColumn, grown
from gur_spark.features.states.exact import SquareSum, exact_sums, overflow, row_overflow, std_steps, too_large
from gur_spark.features.states.groups import Groups, PlacedRows, as_numpy
from gur_spark.features.states.tiles import DateWindows, Tiles

_NO_MIN, _NO_MAX = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@dataclass(frozen=True)
class Numbers:
    """Statistics of a numeric field in a date's windows, in steps."""

    count_GW: Ints
    sum_GW: Ints
    squares: SquareSum
    min_GW: Ints
    max_GW: Ints

    @cached_property
    def std_GW(self) -> Any:
        """``count`` times the population standard deviation."""
        return std_steps(self.count_GW, self.sum_GW, self.squares)


class NumericState(State):
    """Count, sum, sum of squares, minimum and maximum per group and tile, in steps."""

    per_group = 48
    stored: ClassVar[ArrayRules] = {
        "count_GB": per_tile(),
        "sum_GB": per_tile(),
        "square_GB.high": per_tile(),
        "square_GB.low": per_tile(),
        "min_GB": per_tile(_NO_MIN, np.minimum),
        "max_GB": per_tile(_NO_MAX, np.maximum),
    }

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value)
        self._empty = np.zeros((0, len(tiles)), np.int64)
        self.count_GB, self.sum_GB, self.min_GB, self.max_GB = (self._empty for _ in range(4))
        self.square_GB = SquareSum(self._empty, self._empty)

    def load(self, arrays: Mapping[str, Any], advance: Advance) -> None:
        """As ``State.load``.

        Raises:
            AggregateOverflow: tiles became one, and their sum does not fit.
        """
        for name in ("sum_GB", "square_GB.high"):
            self._check(too_large(advance.tiles(arrays[name].astype(np.float64), 0.0, np.add)), len(advance.new))
        super().load(arrays, advance)

    def merge(self, arrays: Mapping[str, Any], code_G: Ints) -> None:
        """As ``State.merge``.

        Raises:
            AggregateOverflow: a sum does not fit.
        """
        self._grow()
        for name, mine in (("sum_GB", self.sum_GB), ("square_GB.high", self.square_GB.high)):
            slot = overflow(mine[code_G], arrays[name])
            if slot is not None:
                refuse(self.value, self.groups.name(int(code_G[slot // len(self.tiles)])))
        super().merge(arrays, code_G)
        # The sums of the low limbs may have a carry.
        self.square_GB = self.square_GB.map(lambda limb: limb)

    def _add(self, rows: PlacedRows) -> None:
        rows = rows.present(str(self.value.column))
        if not len(rows.slot_N):
            return
        slot_N, x_N = rows.slot_N, as_numpy(rows.table[self.value.column])
        counts = np.bincount(slot_N, minlength=self.count_GB.size)
        self.count_GB.reshape(-1)[:] += counts
        sums = exact_sums(slot_N, x_N, counts)
        self._check(overflow(self.sum_GB.reshape(-1), sums), self.sum_GB.shape[1])
        self.sum_GB.reshape(-1)[:] += sums
        squares = SquareSum.of(slot_N, x_N, counts)
        self._check(self.square_GB.overflow(squares), self.sum_GB.shape[1])
        self.square_GB.add(squares)
        np.minimum.at(self.min_GB.reshape(-1), slot_N, x_N)
        np.maximum.at(self.max_GB.reshape(-1), slot_N, x_N)

    def _view(self, windows: DateWindows) -> Numbers:
        for sums_GB in (self.sum_GB, self.square_GB.high):
            # Checked in float64, which does not wrap, so that the sums in int64 below do not wrap either.
            self._check(row_overflow(windows.by_part(sums_GB.astype(np.float64))), len(windows.lengths))
        return Numbers(
            count_GW=np.cumsum(windows.by_part(self.count_GB), axis=1),
            sum_GW=np.cumsum(windows.by_part(self.sum_GB), axis=1),
            squares=self.square_GB.map(windows.by_part).cumulative(),
            min_GW=np.minimum.accumulate(windows.by_part(self.min_GB, np.minimum), axis=1),
            max_GW=np.maximum.accumulate(windows.by_part(self.max_GB, np.maximum), axis=1),
        )

    def _grow(self) -> None:
        groups = len(self.groups)
        self.count_GB = grown(self.count_GB, groups, 0)
        self.sum_GB = grown(self.sum_GB, groups, 0)
        self.square_GB = self.square_GB.map(lambda limb: grown(limb, groups, 0))
        self.min_GB = grown(self.min_GB, groups, _NO_MIN)
        self.max_GB = grown(self.max_GB, groups, _NO_MAX)

    def _check(self, slot: int | None, width: int) -> None:
        """Refuse the group of a slot, given the width of the array; None is no slot."""
        if slot is not None:
            refuse(self.value, self.groups.name(slot // width))


def refuse(value: ValueColumn, group: str) -> None:
    """Refuse a sum.

    Raises:
        AggregateOverflow: always; the message names the field and the user.
    """
    step = value.numeric.step if value.numeric else 1
    raise AggregateOverflow(
        f"field '{value.column}' of user {group}: a sum over its window does not fit "
        f"exact integers; declare a coarser step than {step}, or bound the values"
    )

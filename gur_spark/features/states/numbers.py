"""Count, sum, sum of squares, least and greatest of a numeric field, exactly, in steps.

Legend of array shapes: N = rows, G = groups, B = bands, W = windows of a slice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gur_spark.errors import AggregateOverflow
from gur_spark.features.states.advance import Kept, Shift, per_band
from gur_spark.features.states.base import Source, State, grown
from gur_spark.features.states.exact import SquareSum, exact_sums, overflow, row_overflow, std_steps, too_large
from gur_spark.features.states.groups import Groups, Ints, Rows, as_numpy
from gur_spark.features.states.tiles import Bands, Slice

_NO_MIN, _NO_MAX = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@dataclass(frozen=True)
class Numbers:
    """Statistics of a numeric field in the windows of a slice, in steps."""

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
    """Count, sum, sum of squares, min and max per band, in steps."""

    per_group = 48
    kept: ClassVar[Kept] = {
        "count_GB": per_band(),
        "sum_GB": per_band(),
        "square_GB.high": per_band(),
        "square_GB.low": per_band(),
        "min_GB": per_band(_NO_MIN, np.minimum),
        "max_GB": per_band(_NO_MAX, np.maximum),
    }

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self._empty = np.zeros((0, len(bands)), np.int64)
        self.count_GB, self.sum_GB, self.min_GB, self.max_GB = (self._empty for _ in range(4))
        self.square_GB = SquareSum(self._empty, self._empty)

    def load(self, arrays: Mapping[str, Any], shift: Shift) -> None:
        """Raises AggregateOverflow, where bands that are one now have a sum that does not fit."""
        for name in ("sum_GB", "square_GB.high"):
            self._check(too_large(shift.bands(arrays[name].astype(np.float64), 0.0, np.add)), len(shift.new))
        super().load(arrays, shift)

    def merge(self, arrays: Mapping[str, Any], code_G: Ints) -> None:
        """Raises AggregateOverflow."""
        self._grow()
        for name, mine in (("sum_GB", self.sum_GB), ("square_GB.high", self.square_GB.high)):
            slot = overflow(mine[code_G], arrays[name])
            if slot is not None:
                refuse(self.source, self.groups.name(int(code_G[slot // len(self.bands)])))
        super().merge(arrays, code_G)
        # What the lower limbs have too much is carried.
        self.square_GB = self.square_GB.map(lambda limb: limb)

    def _add(self, rows: Rows) -> None:
        rows = rows.present(str(self.source.column))
        if not len(rows.slot_N):
            return
        slot_N, x_N = rows.slot_N, as_numpy(rows.table[self.source.column])
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

    def _view(self, of: Slice) -> Numbers:
        for sums_GB in (self.sum_GB, self.square_GB.high):
            # As floats, which do not wrap; the whole numbers below then do not either.
            self._check(row_overflow(of.by_window(sums_GB.astype(np.float64))), len(of.windows))
        return Numbers(
            count_GW=np.cumsum(of.by_window(self.count_GB), axis=1),
            sum_GW=np.cumsum(of.by_window(self.sum_GB), axis=1),
            squares=self.square_GB.map(of.by_window).cumulative(),
            min_GW=np.minimum.accumulate(of.by_window(self.min_GB, np.minimum), axis=1),
            max_GW=np.maximum.accumulate(of.by_window(self.max_GB, np.maximum), axis=1),
        )

    def _grow(self) -> None:
        groups = len(self.groups)
        self.count_GB = grown(self.count_GB, groups, 0)
        self.sum_GB = grown(self.sum_GB, groups, 0)
        self.square_GB = self.square_GB.map(lambda limb: grown(limb, groups, 0))
        self.min_GB = grown(self.min_GB, groups, _NO_MIN)
        self.max_GB = grown(self.max_GB, groups, _NO_MAX)

    def _check(self, slot: int | None, width: int) -> None:
        """Raise for the group of a slot of an array ``width`` wide; None is no slot."""
        if slot is not None:
            refuse(self.source, self.groups.name(slot // width))


def refuse(source: Source, group: str) -> None:
    """Raises AggregateOverflow, which names field and user."""
    step = source.numeric.step if source.numeric else 1
    raise AggregateOverflow(
        f"field '{source.column}' of user {group}: a sum over its window does not fit "
        f"exact integers; declare a coarser step than {step}, or bound the values"
    )

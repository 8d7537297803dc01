"""Sums of a number per day, or per hour where tiles count in hours, for operations that weigh days by their age.

Legend of array shapes: N = rows or different (group, unit) pairs, G = groups, D = days, W = windows of a date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.declare.windows import DAY_HOURS
from gur_spark.features.states.advance import ArrayRules, unit_key, unmoved
from gur_spark.features.states.base import MERGE_ROWS, SparseState, ValueColumn, begins
from gur_spark.features.states.exact import exact_sums, too_large
from gur_spark.features.states.groups import Groups, PlacedRows, as_numpy
from gur_spark.features.states.numbers import refuse
from gur_spark.features.states.tiles import DateWindows, Tiles


class DaySums(SparseState):
    """The sum of a number per group and unit of the tiles, held for those that have events."""

    per_event = 16
    stored: ClassVar[ArrayRules] = {"keys": unit_key, "sums": unmoved}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value)
        self._parts: list[tuple[Ints, Ints]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]

    def _add(self, rows: PlacedRows) -> None:
        rows = rows.present(str(self.value.column))
        if not len(rows.slot_N):
            return
        key_N = rows.group_N * self.tiles.units + rows.unit_N
        keys, place_N, counts = np.unique(key_N, return_inverse=True, return_counts=True)
        sums = exact_sums(place_N, as_numpy(rows.table[self.value.column]), counts)
        self._parts.append((keys, sums))
        if sum(len(k) for k, _ in self._parts[1:]) > max(len(self._parts[0][0]), MERGE_ROWS):
            self._merge()

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        self._parts = [(arrays[0], arrays[1])]

    @property
    def _keys_of_group(self) -> int:
        return self.tiles.units

    def _join(self, arrays: Sequence[Any]) -> None:
        self._parts.append((arrays[0], arrays[1]))
        self._merge()

    def _merge(self) -> tuple[Ints, Ints]:
        """Join the parts into one. It runs each time the loose parts outgrow the first, so its cost stays linear."""
        if len(self._parts) > 1:
            keys, sums = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            order = np.argsort(keys, kind="stable")
            keys, sums = keys[order], sums[order]
            starts = np.flatnonzero(begins(keys))
            if len(starts):
                # Checked in float64, which does not wrap, so that the sum in int64 below does not wrap either.
                beyond = too_large(np.add.reduceat(sums.astype(np.float64), starts))
                if beyond is not None:
                    refuse(self.value, self.groups.name(int(keys[starts[beyond]]) // self.tiles.units))
                keys, sums = keys[starts], np.add.reduceat(sums, starts)
            self._parts = [(keys, sums)]
        return self._parts[0]

    def _view(self, windows: DateWindows) -> "DailyTotals":
        keys, sums = self._merge()
        group_N, unit_N = np.divmod(keys, self.tiles.units)
        return DailyTotals(windows, group_N, unit_N, sums, len(self.groups))


@dataclass(frozen=True)
class DailyTotals:
    """Sums per group and unit, in the order of group and unit."""

    windows: DateWindows
    group_N: Ints
    unit_N: Ints
    sum_N: Ints
    groups: int

    def decayed(self, half_life: float) -> Any:
        """Weighted sum of each window, (G, W): a day's weight is 1 for the eve and halves every ``half_life`` days.

        A part of a day has the weight of the day.
        """
        day_units = DAY_HOURS // self.windows.unit_hours
        lag = self.windows.lag // day_units
        columns = []
        for units in self.windows.units:
            inside_N = (self.unit_N >= units.start) & (self.unit_N < units.stop)
            # Powers are computed one by one in the order of days, so that a sum has the same bits every time.
            weight_D = np.array([2.0 ** (-day / half_life) for day in range(-(-units.stop // day_units) - lag)])
            weighted_N = self.sum_N[inside_N] * weight_D[self.unit_N[inside_N] // day_units - lag]
            columns.append(np.bincount(self.group_N[inside_N], weighted_N, minlength=self.groups))
        return np.stack(columns, axis=1)

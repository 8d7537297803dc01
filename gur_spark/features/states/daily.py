"""Sums of a number per day, for what weighs days by their age.

Legend of array shapes: N = rows, or different (group, day) pairs, G = groups, W = windows of a slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gur_spark.features.states.advance import Kept, day_key, unmoved
from gur_spark.features.states.base import MERGE_ROWS, Keyed, Source, begins
from gur_spark.features.states.exact import exact_sums, too_large
from gur_spark.features.states.groups import Groups, Ints, Rows, as_numpy
from gur_spark.features.states.numbers import refuse
from gur_spark.features.states.tiles import Bands, Slice


class DaySums(Keyed):
    """The sum of a number per group and day, sparse."""

    per_event = 16
    kept: ClassVar[Kept] = {"keys": day_key, "sums": unmoved}

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self._parts: list[tuple[Ints, Ints]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]

    def _add(self, rows: Rows) -> None:
        rows = rows.present(str(self.source.column))
        if not len(rows.slot_N):
            return
        key_N = rows.group_N * self.bands.days + rows.day_N
        keys, place_N, counts = np.unique(key_N, return_inverse=True, return_counts=True)
        sums = exact_sums(place_N, as_numpy(rows.table[self.source.column]), counts)
        self._parts.append((keys, sums))
        if sum(len(k) for k, _ in self._parts[1:]) > max(len(self._parts[0][0]), MERGE_ROWS):
            self._merge()

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        self._parts = [(arrays[0], arrays[1])]

    @property
    def _keys_of_group(self) -> int:
        return self.bands.days

    def _join(self, arrays: Sequence[Any]) -> None:
        self._parts.append((arrays[0], arrays[1]))
        self._merge()

    def _merge(self) -> tuple[Ints, Ints]:
        """Join parts; done each time the loose ones outgrow the first, so the cost stays linear."""
        if len(self._parts) > 1:
            keys, sums = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            order = np.argsort(keys, kind="stable")
            keys, sums = keys[order], sums[order]
            starts = np.flatnonzero(begins(keys))
            if len(starts):
                # As floats, which do not wrap; the whole numbers below then do not either.
                beyond = too_large(np.add.reduceat(sums.astype(np.float64), starts))
                if beyond is not None:
                    refuse(self.source, self.groups.name(int(keys[starts[beyond]]) // self.bands.days))
                keys, sums = keys[starts], np.add.reduceat(sums, starts)
            self._parts = [(keys, sums)]
        return self._parts[0]

    def _view(self, of: Slice) -> "DailyTotals":
        keys, sums = self._merge()
        group_N, day_N = np.divmod(keys, self.bands.days)
        return DailyTotals(of, group_N, day_N, sums, len(self.groups))


@dataclass(frozen=True)
class DailyTotals:
    """Sums per group and day, in the order of both."""

    of: Slice
    group_N: Ints
    day_N: Ints
    sum_N: Ints
    groups: int

    def decayed(self, half_life: float) -> Any:
        """Per window, the sum with each day's weight: 1 for the last day, a half ``half_life`` days before, (G, W)."""
        columns = []
        for days in self.of.days:
            inside_N = (self.day_N >= days.start) & (self.day_N < days.stop)
            # The eve of the date is day 0. One after the other, from the last day on: the same sum every time.
            weight_D = np.array([2.0 ** (-day / half_life) for day in range(days.stop - self.of.lag)])
            weighted_N = self.sum_N[inside_N] * weight_D[self.day_N[inside_N] - self.of.lag]
            columns.append(np.bincount(self.group_N[inside_N], weighted_N, minlength=self.groups))
        return np.stack(columns, axis=1)

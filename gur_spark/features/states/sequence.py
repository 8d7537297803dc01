"""States that hold events in the order of time: the last or first few values, and all times.

Among events of one microsecond the greater value comes first, so that the order of rows does not matter.

Legend of array shapes: N = rows held, G = groups, W = windows of a date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.states.advance import ArrayRules, age, tile_key, unmoved
from gur_spark.features.states.base import DAY_US, MERGE_ROWS, SparseState, ValueColumn, begins
from gur_spark.features.states.groups import Groups, PlacedRows, as_numpy
from gur_spark.features.states.tiles import HOUR_US, DateWindows, Tiles


@dataclass(frozen=True)
class Ordered:
    """Values in the order of group and time, and the part of a window that each is in."""

    windows: DateWindows
    group_N: Ints
    part_N: Ints
    value_N: Ints
    keep: int
    groups: int

    def window(self, number: int) -> tuple[Ints, Ints]:
        """The first ``keep`` values of each group in a window, and the place where each group's begin, (G + 1,)."""
        inside_N = np.flatnonzero(self.part_N <= number)
        group_N = self.group_N[inside_N]
        inside_N = inside_N[_place(group_N) < self.keep]
        sizes_G = np.bincount(self.group_N[inside_N], minlength=self.groups)
        return self.value_N[inside_N], np.append(0, np.cumsum(sizes_G))


class LastValues(SparseState):
    """The last ``keep`` values of each group and tile, or the first ones."""

    stored: ClassVar[ArrayRules] = {"slots": tile_key, "ages": age, "values": unmoved}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn, keep: int = 1, newest: bool = True) -> None:
        super().__init__(groups, tiles, value)
        self.per_group = 24 * keep
        self._keep, self._newest = keep, newest
        self._empty = np.zeros(0, np.int64)
        self._parts: list[tuple[Ints, Ints, Ints]] = []

    def _add(self, rows: PlacedRows) -> None:
        rows = rows.present(str(self.value.column))
        slot_N, age_N = rows.slot_N, rows.age_N
        slot_N, age_N = self._turned(slot_N, age_N)
        self._parts.append(self._best(slot_N, age_N, as_numpy(rows.table[self.value.column])))
        if sum(len(slots) for slots, _, _ in self._parts[1:]) > max(len(self._parts[0][0]), MERGE_ROWS):
            self._merge()

    def _turned(self, slot_N: Ints, age_N: Ints) -> tuple[Ints, Ints]:
        """Reverse the order of time where the first values are wanted; applied twice, it changes nothing."""
        if self._newest:
            return slot_N, age_N
        group_N, tile_N = np.divmod(slot_N, len(self.tiles))
        return group_N * len(self.tiles) + len(self.tiles) - 1 - tile_N, -age_N

    def _arrays(self) -> Sequence[Any]:
        slot_N, age_N, value_N = self._merge()
        return [*self._turned(slot_N, age_N), value_N]

    def _restore(self, arrays: Sequence[Any]) -> None:
        slot_N, age_N, value_N = arrays
        # Tiles that became one hold too many values.
        self._parts = [self._best(*self._turned(slot_N, age_N), value_N)]

    @property
    def _keys_of_group(self) -> int:
        return len(self.tiles)

    def _join(self, arrays: Sequence[Any]) -> None:
        slot_N, age_N, value_N = arrays
        self._parts.append((*self._turned(slot_N, age_N), value_N))
        self._merge()

    def _view(self, windows: DateWindows) -> Ordered:
        slot_N, _, value_N = self._merge()
        group_N, tile_N = np.divmod(slot_N, len(self.tiles))
        tile_N = tile_N if self._newest else len(self.tiles) - 1 - tile_N
        part_N = windows.part_of_tile(len(self.tiles))[tile_N]
        inside_N = part_N < len(windows.lengths)
        kept = (group_N[inside_N], part_N[inside_N], value_N[inside_N])
        return Ordered(windows, *kept, keep=self._keep, groups=len(self.groups))

    def _best(self, slot_N: Ints, age_N: Ints, value_N: Ints) -> tuple[Ints, Ints, Ints]:
        order = np.lexsort((-value_N, age_N, slot_N))
        best = order[_place(slot_N[order]) < self._keep]
        return slot_N[best], age_N[best], value_N[best]

    def _merge(self) -> tuple[Ints, Ints, Ints]:
        if len(self._parts) != 1:
            joined = [np.concatenate([self._empty, *arrays]) for arrays in zip(*self._parts, strict=True)]
            slot_N, age_N, value_N = joined or [self._empty] * 3
            self._parts = [self._best(slot_N, age_N, value_N)]
        return self._parts[0]


@dataclass(frozen=True)
class Gaps:
    """Times of a group's events, from which the gaps between neighbours follow, in the order of group and age."""

    windows: DateWindows
    group_N: Ints
    age_N: Ints
    groups: int

    def std_days(self) -> tuple[Any, Any]:
        """Population standard deviation of the gaps of each window, in days, and the number of gaps, both (G, W)."""
        unit_N = (self.age_N - 1) // (self.windows.unit_hours * HOUR_US)
        deviations, numbers = [], []
        for units in self.windows.units:
            inside_N = (unit_N >= units.start) & (unit_N < units.stop)
            group_N, age_N = self.group_N[inside_N], self.age_N[inside_N]
            same_N = group_N[1:] == group_N[:-1]
            of_gap_N, gap_N = group_N[1:][same_N], np.diff(age_N)[same_N] / DAY_US
            n_G = np.bincount(of_gap_N, minlength=self.groups)
            mean_G = np.bincount(of_gap_N, gap_N, minlength=self.groups) / np.maximum(n_G, 1)
            squares_G = np.bincount(of_gap_N, (gap_N - mean_G[of_gap_N]) ** 2, minlength=self.groups)
            deviations.append(np.sqrt(squares_G / np.maximum(n_G, 1)))
            numbers.append(n_G)
        return np.stack(deviations, axis=1), np.stack(numbers, axis=1)


class Times(SparseState):
    """The time of every event. Memory grows with events, so it is only for operations that no smaller state serves."""

    per_event = 16
    stored: ClassVar[ArrayRules] = {"groups": unmoved, "ages": age}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value)
        self._parts: list[tuple[Ints, Ints]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]

    def _add(self, rows: PlacedRows) -> None:
        self._parts.append((rows.group_N, rows.age_N))

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        self._parts = [(arrays[0], arrays[1])]

    @property
    def _keys_of_group(self) -> int:
        return 1

    def _join(self, arrays: Sequence[Any]) -> None:
        self._parts.append((arrays[0], arrays[1]))

    def _view(self, windows: DateWindows) -> Gaps:
        return Gaps(windows, *self._merge(), groups=len(self.groups))

    def _merge(self) -> tuple[Ints, Ints]:
        if len(self._parts) > 1:
            group_N, age_N = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            order = np.lexsort((age_N, group_N))
            self._parts = [(group_N[order], age_N[order])]
        return self._parts[0]


def _place(ordered: Ints) -> Ints:
    """Numbers 0, 1, 2 and so on within each run of equal values."""
    starts = np.flatnonzero(begins(ordered))
    return np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))

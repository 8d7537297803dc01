"""Number of events per id of a category, as sorted keys with their counts.

Legend of array shapes: N = rows or keys, G = groups, P = different (group, id) pairs, W = windows of a date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.states.advance import ArrayRules, tile_key, unmoved
from gur_spark.features.states.base import MERGE_ROWS, SparseState, ValueColumn, begins
from gur_spark.features.states.groups import ID_BITS, Groups, PlacedRows, as_numpy
from gur_spark.features.states.tiles import DateWindows, Tiles


@dataclass(frozen=True)
class Counts:
    """Number of events per group and id in a date's windows, in the order of group and id."""

    pair_P: Ints
    """``group << 31 | id`` of each pair with an event in the longest window."""
    count_WP: Any
    """Number of events, int32."""
    groups: int

    @cached_property
    def group_P(self) -> Ints:
        return self.pair_P >> ID_BITS

    @cached_property
    def ids_P(self) -> Any:
        return (self.pair_P & ((1 << ID_BITS) - 1)).astype(np.int32)

    @cached_property
    def offsets(self) -> Any:
        """Place at which each group's pairs begin, (G + 1,)."""
        return np.append(0, np.cumsum(np.bincount(self.group_P, minlength=self.groups))).astype(np.int32)

    def total_G(self, values_P: Any) -> Any:
        """Sum of whole numbers over each group's pairs."""
        return np.diff(np.append(0, np.cumsum(values_P))[self.offsets])


class Histogram(SparseState):
    """Number of events per group, id and tile, held for those that have events."""

    per_event = 16
    stored: ClassVar[ArrayRules] = {"keys": tile_key, "counts": unmoved}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value)
        self._parts: list[tuple[Ints, Ints]] = []
        self._loose = 0
        self._split: tuple[Ints, Ints, Ints] | None = None

    def ids(self, rows: PlacedRows) -> tuple[PlacedRows, Ints]:
        """The rows to be counted, and the id of each, from 0 to 2^31 - 1."""
        return rows, as_numpy(rows.table[self.value.column])

    def _add(self, rows: PlacedRows) -> None:
        rows, ids_N = self.ids(rows)
        if not len(ids_N):
            return
        # Key = group, id, tile from high to low bits, so that sorting puts a group's ids together.
        tile_N = rows.slot_N - rows.group_N * len(self.tiles)
        self._split = None
        self._parts.append(_count_sorted(((rows.group_N << ID_BITS) | ids_N) * len(self.tiles) + tile_N))
        self._loose += len(self._parts[-1][0])
        if self._loose > max(len(self._parts[0][0]), MERGE_ROWS) and len(self._parts) > 1:
            self._merge()

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        keys, counts = arrays
        if len(keys):
            # Keys are in order already. Keys of tiles that became one are equal now.
            starts = np.flatnonzero(begins(keys))
            self._parts = [(keys[starts], np.add.reduceat(counts, starts))]

    @property
    def _keys_of_group(self) -> int:
        return len(self.tiles) << ID_BITS

    def _join(self, arrays: Sequence[Any]) -> None:
        keys, counts = arrays
        self._split = None
        self._parts.append((keys, counts))
        self._merge()

    def _view(self, windows: DateWindows) -> Counts:
        pair_N, part_N, count_N = self._inside(windows)
        begins_N = begins(pair_N)
        row_N = np.cumsum(begins_N) - 1
        pair_P = pair_N[begins_N]
        # Counts are whole and far below 2^53: adding them as floats is exact.
        count_WP = np.bincount(part_N * len(pair_P) + row_N, count_N, len(windows.lengths) * len(pair_P))
        cumulative_WP = count_WP.astype(np.int32).reshape(len(windows.lengths), -1)
        for shorter, longer in pairwise(cumulative_WP):
            # Row by row, because numpy's running sum goes down each column and is ten times as slow.
            np.add(longer, shorter, out=longer)
        return Counts(pair_P, cumulative_WP, len(self.groups))

    def _inside(self, windows: DateWindows) -> tuple[Ints, Ints, Ints]:
        """Pair (group and id), part of a window and count of each key inside the date's windows."""
        if self._split is None:
            keys, count_N = self._merge()
            pair_N, tile_N = np.divmod(keys, len(self.tiles))
            self._split = pair_N, tile_N.astype(np.int16), count_N.astype(np.int32)
        pair_N, tile_N, count_N = self._split
        part_N = windows.part_of_tile(len(self.tiles))[tile_N]
        inside_N = part_N < len(windows.lengths)
        if inside_N.all():
            return pair_N, part_N, count_N
        key_N = np.flatnonzero(inside_N)
        return pair_N[key_N], part_N[key_N], count_N[key_N]

    def _merge(self) -> tuple[Ints, Ints]:
        """Join the parts into one. It runs each time the loose parts outgrow the first, so its cost stays linear."""
        if len(self._parts) > 1:
            keys = np.concatenate([k for k, _ in self._parts])
            counts = np.concatenate([c for _, c in self._parts])
            order = np.argsort(keys, kind="stable")
            starts = np.flatnonzero(begins(keys := keys[order]))
            self._parts = [(keys[starts], np.add.reduceat(counts[order], starts))]
        self._loose = 0
        return self._parts[0] if self._parts else (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _count_sorted(keys: Ints) -> tuple[Ints, Ints]:
    keys = np.sort(keys)
    starts = np.flatnonzero(begins(keys))
    return keys[starts], np.diff(np.append(starts, len(keys)))

"""Attributes of a user at a date: for each log of attributes, the newest row that is valid before the date.

Among rows that are valid from the same moment, the one that landed last counts; among those, the one with the greater
values. So the order of rows does not matter. A set of categories has one row for each member, and all rows of that
moment and landing count.

Legend of array shapes: N = rows of attributes, U = users, L = logs of attributes, F = attributes, P = members of sets.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Ints
from gur_spark.features.declare.manifest import AttributeField
from gur_spark.features.states.advance import ArrayRules, age, unmoved
from gur_spark.features.states.base import MERGE_ROWS, SparseState, ValueColumn, begins
from gur_spark.features.states.groups import ID_BITS, PlacedRows, UserGroups, as_numpy
from gur_spark.features.states.tiles import DateWindows, Tiles
from gur_spark.schema import MISSING_ID

HELD, HELD_LOG, HELD_LANDED, HELD_KNOWN = "_held_us", "_held_log", "_held_landed", "_held_known_from"
"""Columns of a row of attributes: microseconds from the moment since which it is valid to the newest date, number of
its log, day on which it landed, and number of dates that may not know it. They are null in rows of events."""

_NULL = np.iinfo(np.int64).min + 1
"""Stands for null: less than any number of steps, and its negative is an int64, too."""


class Attributes(SparseState):
    """Rows of attributes.

    All rows are held where there are several dates, or later dates to come, because the row that counts depends on the
    date. For one date alone, only the row that counts is held.
    """

    stored: ClassVar[ArrayRules] = {"keys": unmoved, "ages": age, "landed": unmoved, "values": unmoved}

    def __init__(self, users: UserGroups, tiles: Tiles, fields: Sequence[AttributeField]) -> None:
        super().__init__(users, tiles, ValueColumn())
        self.fields = fields
        self._logs = list(dict.fromkeys(field.log for field in fields))
        empty = np.zeros(0, np.int64)
        self._parts = [(empty, empty, empty, np.zeros((0, len(fields)), np.int64))]

    def columns(self, windows: DateWindows) -> Iterator[tuple[str, pa.Array]]:
        """Name and values of each attribute at the date, one value per user."""
        if not self.fields:
            return
        row_UL, end_UL, values_NF = self.at(windows)
        for number, field in enumerate(self.fields):
            log = self._logs.index(field.log)
            row_U = row_UL[:, log]
            if field.separator:
                yield field.name, _sets(values_NF[:, number], row_U, end_UL[:, log])
                continue
            held_U = np.append(values_NF[:, number], _NULL)[row_U]
            null_U = held_U == _NULL
            if field.numeric is None:
                yield field.name, pa.array(np.where(null_U, MISSING_ID, held_U))
            else:
                steps_U = np.where(null_U, 0, held_U)
                yield field.name, pa.array(ValueColumn(field.name, field.numeric).units(steps_U), mask=null_U)

    def _add(self, rows: PlacedRows) -> None:
        log_N, landed_N = (as_numpy(rows.table[name]) for name in (HELD_LOG, HELD_LANDED))
        values = [as_numpy(pc.fill_null(rows.table[field.name], _NULL)) for field in self.fields]
        self._parts.append((rows.group_N * len(self._logs) + log_N, rows.age_N, landed_N, np.stack(values, axis=1)))
        if sum(len(part[0]) for part in self._parts[1:]) > max(len(self._parts[0][0]), MERGE_ROWS):
            self._merge()

    def _view(self, windows: DateWindows) -> tuple[Ints, Ints, Ints]:
        """Rows that count at the date.

        Returns the first row for each user and log, (U, L), with -1 where there is none; the end of the rows that count
        together with it, (U, L); and the values of all rows, (N, F).
        """
        key_N, age_N, landed_N, values_NF = self._merge()
        # An event at midnight is after the date, and so is a row that is valid from midnight on.
        holds_N = np.flatnonzero(age_N > windows.lag_us)
        newest = holds_N[begins(key_N[holds_N])]
        row_UL = np.full((len(self.groups), len(self._logs)), -1)
        row_UL.reshape(-1)[key_N[newest]] = newest
        starts = np.append(np.flatnonzero(_begins_moment(key_N, age_N, landed_N)), len(key_N))
        return row_UL, starts[np.searchsorted(starts[:-1], row_UL, side="right")], values_NF

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        keys, ages, landed, values = arrays
        self._parts = [(keys, ages, landed, values)]

    @property
    def _keys_of_group(self) -> int:
        return max(len(self._logs), 1)

    def _join(self, arrays: Sequence[Any]) -> None:
        keys, ages, landed, values = arrays
        self._parts.append((keys, ages, landed, values))
        self._merge()

    def _merge(self) -> tuple[Ints, Ints, Ints, Ints]:
        """All rows, sorted by user and log, the newest row first."""
        if len(self._parts) > 1:
            key_N, age_N, landed_N, values_NF = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            order = np.lexsort((*-values_NF.T[::-1], -landed_N, age_N, key_N))
            if len(self.tiles.dates) == 1 and not self.tiles.horizon:
                # No other date needs the older rows.
                key_N, age_N, landed_N, values_NF = (a[order] for a in (key_N, age_N, landed_N, values_NF))
                run_N = np.cumsum(_begins_moment(key_N, age_N, landed_N))
                first_N = begins(key_N)
                order = np.flatnonzero(run_N == run_N[first_N][np.cumsum(first_N) - 1])
            self._parts = [(key_N[order], age_N[order], landed_N[order], values_NF[order])]
        return self._parts[0]


def _begins_moment(key_N: Ints, age_N: Ints, landed_N: Ints) -> Any:
    """True for the first row of each user, log, moment and landing."""
    return begins(key_N) | begins(age_N) | begins(landed_N)


def _sets(id_N: Ints, row_U: Ints, end_U: Ints) -> pa.Array:
    """The different ids in each user's rows, ascending; an empty list where there is no row or the value is missing."""
    size_U = np.where(row_U < 0, 0, end_U - row_U)
    first_U = np.cumsum(size_U) - size_U
    user_P = np.repeat(np.arange(len(row_U)), size_U)
    id_P = id_N[np.arange(len(user_P)) + np.repeat(row_U - first_U, size_U)]
    there_P = (id_P != _NULL) & (id_P != MISSING_ID)
    pair_P = np.unique((user_P[there_P] << ID_BITS) | id_P[there_P])
    offsets = np.append(0, np.cumsum(np.bincount(pair_P >> ID_BITS, minlength=len(row_U))))
    ids = pa.array((pair_P & ((1 << ID_BITS) - 1)).astype(np.int32))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), ids)

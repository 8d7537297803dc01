"""What is known of a user at a date: of each log of attributes, the newest row that holds before the date.

Of rows that hold from the same moment the one that landed last counts, of those the one with the greater values, so
that the order of rows does not matter.

Legend of array shapes: N = rows of attributes, U = users, L = logs of attributes, F = attributes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.features.bands import Bands, Slice
from gur_spark.features.groups import Ints, Rows, Users, as_numpy
from gur_spark.features.shift import Kept, age, unmoved
from gur_spark.features.states import DAY_US, MERGE_ROWS, Source, State, begins
from gur_spark.schema import MISSING_ID, AttributeField

HELD, HELD_LOG, HELD_LANDED, HELD_KNOWN = "_held_us", "_held_log", "_held_landed", "_held_known_from"
"""Of a row of attributes: the microseconds from when on it holds to the newest date, the number of its log, the day it
landed, and how many dates may not know it. Null in rows that are events."""

_NULL = np.iinfo(np.int64).min + 1
"""Less than any number of steps; its negative is a number, too."""


class Attributes(State):
    """The rows of attributes: every one where there are several dates, or later ones, as it depends on the date which
    of them holds."""

    kept: ClassVar[Kept] = {"keys": unmoved, "ages": age, "landed": unmoved, "values": unmoved}

    def __init__(self, users: Users, bands: Bands, fields: Sequence[AttributeField]) -> None:
        super().__init__(users, bands, Source())
        self.fields = fields
        self._logs = list(dict.fromkeys(field.log for field in fields))
        empty = np.zeros(0, np.int64)
        self._parts = [(empty, empty, empty, np.zeros((0, len(fields)), np.int64))]

    def columns(self, of: Slice) -> Iterator[tuple[str, pa.Array]]:
        """Name and values of each attribute at the slice's date, one per user."""
        if not self.fields:
            return
        row_UL, values_NF = self.at(of)
        for number, field in enumerate(self.fields):
            row_U = row_UL[:, self._logs.index(field.log)]
            held_U = np.append(values_NF[:, number], _NULL)[row_U]
            null_U = held_U == _NULL
            if field.numeric is None:
                yield field.name, pa.array(np.where(null_U, MISSING_ID, held_U))
            else:
                steps_U = np.where(null_U, 0, held_U)
                yield field.name, pa.array(Source(field.name, field.numeric).units(steps_U), mask=null_U)

    def _add(self, rows: Rows) -> None:
        log_N, landed_N = (as_numpy(rows.table[name]) for name in (HELD_LOG, HELD_LANDED))
        values = [as_numpy(pc.fill_null(rows.table[field.name], _NULL)) for field in self.fields]
        self._parts.append((rows.group_N * len(self._logs) + log_N, rows.age_N, landed_N, np.stack(values, axis=1)))
        if sum(len(part[0]) for part in self._parts[1:]) > max(len(self._parts[0][0]), MERGE_ROWS):
            self._merge()

    def _view(self, of: Slice) -> tuple[Ints, Ints]:
        """The number of the row that holds for each user and log, (U, L), -1 where none does; values, (N, F)."""
        key_N, age_N, _, values_NF = self._merge()
        # An event at midnight is after the date, and so is what holds from midnight on.
        holds_N = np.flatnonzero(age_N > of.lag * DAY_US)
        newest = holds_N[begins(key_N[holds_N])]
        row_UL = np.full((len(self.groups), len(self._logs)), -1)
        row_UL.reshape(-1)[key_N[newest]] = newest
        return row_UL, values_NF

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        keys, ages, landed, values = arrays
        self._parts = [(keys, ages, landed, values)]

    def _merge(self) -> tuple[Ints, Ints, Ints, Ints]:
        """All rows, those of a user and log together, the one that holds last first."""
        if len(self._parts) > 1:
            key_N, age_N, landed_N, values_NF = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            order = np.lexsort((*-values_NF.T[::-1], -landed_N, age_N, key_N))
            if len(self.bands.dates) == 1 and not self.bands.horizon:
                # Of one date, for none that goes on from it, the row that holds is enough.
                order = order[begins(key_N[order])]
            self._parts = [(key_N[order], age_N[order], landed_N[order], values_NF[order])]
        return self._parts[0]

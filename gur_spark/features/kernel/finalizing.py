"""Finalizing: the states of a partition become the rows of a date, in the columns of the manifest.

Legend of array shapes: U = users, V = values of a pivot.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.features.declare.pivots import PivotValue
from gur_spark.features.declare.plan import Planned
from gur_spark.features.declare.windows import Window
from gur_spark.features.operations import OutputColumn
from gur_spark.features.states.base import State
from gur_spark.features.states.counts import Counts
from gur_spark.features.states.groups import CategoryGroups, as_numpy
from gur_spark.features.states.tiles import DateWindows

if TYPE_CHECKING:
    from gur_spark.features.kernel.partition import PartitionState

_EPOCH = date(1970, 1, 1)

ARROW_TYPES = {
    "long": pa.int64(),
    "double": pa.float64(),
    "array<int>": pa.list_(pa.int32()),
    "array<double>": pa.list_(pa.float64()),
    "date": pa.date32(),
    "string": pa.string(),
}
"""Type of a column in a manifest -> its type in Arrow."""

_Windows = tuple[DateWindows, dict[Window, int]]
"""Windows that end on the same day, and the place of each among them."""


def date_rows(state: "PartitionState", number: int) -> pa.Table:
    """The rows of a date, given its number: one for each user with an event in the longest window, or named."""
    users = len(state.users)
    if not users:
        return pa.schema([(c.name, ARROW_TYPES[c.dtype]) for c in state.manifest.columns]).empty_table()
    day = (state.tiles.dates[number] - _EPOCH).days
    as_of = pa.array(np.full(users, day, np.int32)).cast(pa.date32())
    columns: dict[str, pa.Array] = {"user_id": state.users.values(), "as_of": as_of}
    standard = state.tiles.standard_windows()[number]
    columns |= _Finalizer(state, number, standard).columns()
    for quotient in state.plan.quotients:
        columns[quotient.name] = _quotient(columns[quotient.over[0]], columns[quotient.over[1]], quotient.days)
    columns |= dict(state.attributes.columns(standard))
    # A shuffle brings rows in any order. Files in one order make training on them reproducible.
    order = as_numpy(pc.sort_indices(columns["user_id"]))
    there_U = state.activity.active(standard) | state.named_U
    rows = pa.array(order[there_U[order]])
    # Each column goes as soon as its rows are taken: thousands of columns of pivots are not held twice.
    return pa.table({c.name: columns.pop(c.name).take(rows) for c in state.manifest.columns})


class _Finalizer:
    """The columns that a plan's operations make of a date."""

    def __init__(self, state: "PartitionState", number: int, standard: DateWindows) -> None:
        self._state, self._number, self._standard = state, number, standard
        self._places: dict[Any, Mapping[PivotValue, pa.Array]] = {}

    def columns(self) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        grouped: dict[Any, list[_Windows]] = {}
        for planned, state in self._state.planned_states():
            windows = planned.aggregation.windows
            if windows not in grouped:
                grouped[windows] = self._state.tiles.by_end(self._number, windows)
            columns |= dict(self._of_operation(planned, state, grouped[windows]))
        return columns

    def _of_operation(
        self, planned: Planned, state: State, grouped: Sequence[_Windows]
    ) -> Iterator[tuple[str, pa.Array]]:
        """Columns of an operation, with their names."""
        for windows, places in grouped:
            found = planned.operation.finalize(state.at(windows), windows)
            for window, place in places.items():
                for output, values in zip(planned.operation.outputs(), found[place], strict=True):
                    if window not in planned.windows:
                        continue
                    if planned.pivot_values is not None:
                        yield from self._per_value(planned, output, values, window)
                    else:
                        yield planned.name(output, window), self._per_id(planned, output, values)

    def _per_value(
        self, planned: Planned, output: OutputColumn, values: pa.Array, window: Window
    ) -> Iterator[tuple[str, pa.Array]]:
        """Columns of a pivot: for each of its values, one number per user."""
        for value, place_U in self._places_of(planned).items():
            found = values.take(place_U)
            yield planned.name(output, window, value), pc.fill_null(found, 0) if output.null == "never" else found

    def _places_of(self, planned: Planned) -> Mapping[PivotValue, pa.Array]:
        """For each value of a pivot, the place of each user's pair with it; null where the user has no such event."""
        key = planned.where, planned.aggregation.by, planned.pivot_values
        if key not in self._places:
            pivot_values = planned.pivot_values or ()
            place_VU = self._pairs(planned).places([value.id for value in pivot_values], len(self._state.users))
            self._places[key] = {
                value: pa.array(place_U, mask=place_U < 0)
                for value, place_U in zip(pivot_values, place_VU, strict=True)
            }
        return self._places[key]

    def _per_id(self, planned: Planned, output: OutputColumn, values: pa.Array) -> pa.Array:
        """Lists of an aggregation with ``by``: one value for each id of the user's histogram.

        Without ``by``, the values are returned as they are.
        """
        by = planned.aggregation.by
        if by is None:
            return values
        counts: Counts = self._state.histogram(by).at(self._standard)
        found = values.take(self._pairs(planned).find(counts.pair_P))
        if output.null == "never":
            found = pc.fill_null(found, 0)
        if output.dtype == "long":
            found = found.cast(pa.int32())
        return pa.ListArray.from_arrays(pa.array(counts.offsets), found)

    def _pairs(self, planned: Planned) -> CategoryGroups:
        pairs = self._state.scopes[planned.where, planned.aggregation.by].groups
        assert isinstance(pairs, CategoryGroups)
        return pairs


def _quotient(above: pa.Array, below: pa.Array, days: tuple[float, float]) -> pa.Array:
    """Quotient of two columns, each over a number of days; null where one is null or ``below`` is zero."""
    a, b = (np.nan_to_num(v.cast(pa.float64()).to_numpy(zero_copy_only=False)) for v in (above, below))
    null = above.is_null().to_numpy(zero_copy_only=False) | (b == 0)
    # Adding zero turns -0.0 into 0.0, so that equal numbers have equal bits.
    return pa.array((a / days[0]) / np.where(null, 1.0, b / days[1]) + 0.0, mask=null)

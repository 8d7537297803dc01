"""The aggregation kernel: rows of whole users in, one row per user and as-of date out.

The kernel counts rows per user and tile as they come, in whole numbers, and then sums the tiles of each date's windows.
Memory grows with users, tiles and different categories per user, and not with a user's events. Late events are the
exception: a row that some date may not know waits until the dates before its landing are done.
"""

# N = rows of a chunk, U = users seen so far, P = (user, id) pairs of a histogram

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Ints
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.plan import Plan, Planned, plan_of
from gur_spark.features.kernel.finalizing import ARROW_TYPES, date_rows
from gur_spark.features.states.activity import Activity
from gur_spark.features.states.attributes import HELD, HELD_KNOWN, Attributes
from gur_spark.features.states.base import State, ValueColumn, grown
from gur_spark.features.states.counts import Histogram
from gur_spark.features.states.groups import CategoryGroups, Groups, PlacedRows, UserGroups, as_numpy
from gur_spark.features.states.tiles import Tiles

AGE, KNOWN = "_age_us", "_known_from"
"""Columns of the rows: microseconds from the event to the newest date, and number of dates that may not know the row.

No field can have these names.
"""
CHUNK_ROWS = 1 << 20
"""Rows that are counted at a time."""


def aggregate_partition(
    batches: Iterable[pa.RecordBatch], manifest: Manifest, tiles: Tiles
) -> Iterator[tuple[date, pa.Table]]:
    """Aggregate a partition that holds all rows of its users: one table per date, oldest first.

    A date's table has one row for each user with an event in the longest window, and for each user that a row only
    names. Rows are in the order of user_id and have the manifest's columns. A table may be empty.

    Args:
        batches: columns ``user_id``; ``_age_us``, microseconds from the event to the newest date's midnight, from 1 to
            the beginning of the tiles, null in a row that only names a user; numeric fields in steps; categorical
            fields as ids; the plan's derived columns; and, where there are several dates, ``_known_from``, the number
            of dates that may not know the row. A row with a value in ``_held_us`` is a row of attributes and no event.
        manifest: the columns to compute.

    Raises:
        AggregateOverflow: a sum left its exact range.
    """
    state = PartitionState(manifest, tiles)
    state.take(batches)
    yield from state.tables()


def row_without_events(manifest: Manifest) -> pa.RecordBatch:
    """The row that a snapshot has for a user without events and attributes."""
    day = date(2000, 1, 1)
    tiles = Tiles.of([day], manifest.windows, manifest.declared_windows, day - timedelta(days=1))
    names = [field.name for field in manifest.numeric] + [*manifest.categorical, *plan_of(manifest).derived()]
    user = pa.array([0]).cast(ARROW_TYPES[manifest.user_id_type])
    rows = pa.RecordBatch.from_pydict({"user_id": user, **{name: pa.nulls(1, pa.int64()) for name in (AGE, *names)}})
    [(_, table)] = aggregate_partition([rows], manifest, tiles)
    return table.combine_chunks().to_batches()[0]


def chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches, so that the cost of each numpy call is spread over many rows."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= CHUNK_ROWS:
            yield pa.Table.from_batches(held)
            held, rows = [], 0
    if rows:
        yield pa.Table.from_batches(held)


class PartitionState:
    """The states of all users of one partition."""

    def __init__(self, manifest: Manifest, tiles: Tiles) -> None:
        self.manifest, self.tiles, self.plan = manifest, tiles, plan_of(manifest)
        self.users = UserGroups()
        self.named_U = np.zeros(0, np.bool_)
        self.activity = Activity(self.users, tiles, ValueColumn())
        self.scopes = {scope: _Scope(*scope, self.users, len(tiles), self.plan) for scope in _scopes(self.plan)}
        self.attributes = Attributes(self.users, tiles, manifest.attributes)
        # Operations on the same values share their state.
        self.states: dict[Any, State] = {_key(None, None, Activity, None, ()): self.activity}
        self._state_of = [self._make_state(planned) for planned in self.plan.planned]
        self.late_events: dict[int, list[pa.Table]] = defaultdict(list)
        """Number of the first date that knows them -> rows that wait for that date."""
        self.late_attributes: dict[int, list[pa.Table]] = defaultdict(list)
        """The same for rows of attributes."""

    def take(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Call ``update`` with all rows."""
        for chunk in chunks(batches):
            self.update(chunk)

    def update(self, chunk: pa.Table) -> None:
        """Take rows in. Rows that some date may not know wait for ``learn``."""
        codes_N = self.users.encode(chunk["user_id"])
        self.named_U = grown(self.named_U, len(self.users), False)
        if HELD in chunk.column_names:
            held_N = pc.is_valid(chunk[HELD])
            self._take_attributes(chunk.filter(held_N), codes_N[held_N.to_numpy()])
            chunk, codes_N = chunk.filter(pc.invert(held_N)), codes_N[~held_N.to_numpy()]
        if chunk[AGE].null_count:
            known = pc.is_valid(chunk[AGE])
            self.named_U[codes_N[pc.is_null(chunk[AGE]).to_numpy()]] = True
            chunk, codes_N = chunk.filter(known), codes_N[known.to_numpy()]
        if KNOWN in chunk.column_names:
            late_N = self._set_late_aside(chunk)
            chunk, codes_N = chunk.filter(pa.array(~late_N)), codes_N[~late_N]
        self._count(chunk, codes_N)

    def learn(self, number: int) -> None:
        """Count the rows that are known from a date on, given its number."""
        for chunk in self.late_events.pop(number, []):
            self._count(chunk, self.users.encode(chunk["user_id"]))
        for chunk in self.late_attributes.pop(number, []):
            self._take_attributes(chunk, self.users.encode(chunk["user_id"]), number)

    def tables(self) -> Iterator[tuple[date, pa.Table]]:
        """Each date with its rows, oldest first, once all rows are in."""
        for number, as_of in enumerate(self.tiles.dates):
            self.learn(number)
            yield as_of, self.finalize(number)

    def finalize(self, number: int) -> pa.Table:
        """Rows of a date, given its number."""
        return date_rows(self, number)

    def planned_states(self) -> Iterator[tuple[Planned, State]]:
        """Each operation of the plan with the state that it is computed from."""
        return zip(self.plan.planned, self._state_of, strict=True)

    def histogram(self, field: str) -> State:
        """The state of a field's standard histogram."""
        return self.states[_key(self.plan.conditions[field], None, Histogram, field, ())]

    def bytes_per_user_and_event(self) -> tuple[int, int]:
        """Bytes that a user and an event take in the states and in the rows of a date, about."""
        per_user, per_event = self._bytes_of_rows()
        for (_, by, *_), state in self.states.items():
            days = self.tiles.days if isinstance(state, Activity) else 0
            group = state.per_group * len(self.tiles) + days
            # A user's event may begin a pair of its own.
            per_user += 0 if by else group
            per_event += state.per_event + (group + 16 if by else 0)
        return per_user, per_event

    def _bytes_of_rows(self) -> tuple[int, int]:
        """Bytes that a user and an event take in the columns of a date."""
        lists = [column for column in self.manifest.columns if column.dtype.startswith("array")]
        single = len(self.manifest.columns) - len(lists)
        # Each value of a pivot also has the place of each user's number.
        places = {(p.where, p.aggregation.by, v.id) for p in self.plan.planned for v in p.pivot_values or ()}
        # A user's event may begin an element of its own. A histogram has fewer elements than its state has counts.
        per_event = sum(4 if column.dtype == "array<int>" else 8 for column in lists if column.by)
        return 8 * (single + len(places)) + 4 * len(lists), per_event

    def _make_state(self, planned: Planned) -> State:
        a, operation = planned.aggregation, planned.operation
        key = _key(planned.where, a.by, operation.state, operation.column, operation.options())
        if key not in self.states:
            self.states[key] = operation.make_state(self.scopes[planned.where, a.by].groups, self.tiles)
        return self.states[key]

    def _take_attributes(self, chunk: pa.Table, codes_N: Ints, known_to: int = 0) -> None:
        """Take in rows of attributes that the date of number ``known_to`` knows; the others wait."""
        known_from_N = as_numpy(chunk[HELD_KNOWN])
        for number in np.unique(known_from_N[known_from_N > known_to]).tolist():
            self.late_attributes[number].append(chunk.filter(pa.array(known_from_N == number)))
        known_N = known_from_N <= known_to
        chunk, codes_N = chunk.filter(pa.array(known_N)), codes_N[known_N]
        age_N = as_numpy(chunk[HELD])
        self.attributes.update(PlacedRows(chunk, codes_N, age_N, age_N // self.tiles.unit_us, codes_N))

    def _set_late_aside(self, chunk: pa.Table) -> Any:
        """Set aside rows inside a window of a date that may not know them; returns a mask of them, (N,)."""
        known_from_N = as_numpy(chunk[KNOWN])
        unit_N = (as_numpy(chunk[AGE]) - 1) // self.tiles.unit_us
        # An event on or after the last date that may not know it is in no window of that date or an earlier one.
        late_N = (known_from_N > 0) & (unit_N >= self.tiles.lags[known_from_N - 1])
        # A row that is too old for the windows of the dates that know it is dropped.
        seen_N = unit_N < self.tiles.lags[known_from_N] + self.tiles.reach
        for number in np.unique(known_from_N[late_N & seen_N]).tolist():
            self.late_events[number].append(chunk.filter(pa.array(late_N & seen_N & (known_from_N == number))))
        return late_N

    def _count(self, chunk: pa.Table, codes_N: Ints) -> None:
        age_N = as_numpy(chunk[AGE])
        unit_N = (age_N - 1) // self.tiles.unit_us
        tile_N = self.tiles.of_unit[unit_N]
        for scope in self.scopes.values():
            rows = scope.rows(chunk, codes_N, age_N, unit_N, tile_N)
            for (where, by, *_), state in self.states.items():
                if (where, by) == (scope.where, scope.by):
                    state.update(rows)


class _Scope:
    """Events that satisfy a condition, counted per user or per user and id of a category."""

    def __init__(self, where: str | None, by: str | None, users: UserGroups, tiles: int, plan: Plan) -> None:
        self.where, self.by, self._tiles = where, by, tiles
        self._where_column = plan.where_column(where) if where else None
        self._ids = plan.ids_counted(where, by)
        self.groups: Groups = CategoryGroups(users) if by else users

    def rows(self, chunk: pa.Table, codes_N: Ints, age_N: Ints, unit_N: Ints, tile_N: Ints) -> PlacedRows:
        mask_N = self._counted(chunk)
        if mask_N is not None:
            chunk = chunk.filter(pa.array(mask_N))
            codes_N, age_N, unit_N, tile_N = (v[mask_N] for v in (codes_N, age_N, unit_N, tile_N))
        group_N = (
            self.groups.encode(codes_N, as_numpy(chunk[self.by]))
            if isinstance(self.groups, CategoryGroups)
            else codes_N
        )
        return PlacedRows(chunk, group_N, age_N, unit_N, group_N * self._tiles + tile_N)

    def _counted(self, chunk: pa.Table) -> Any:
        """A mask of the rows that are counted, (N,); None: all rows."""
        mask_N = None if self._where_column is None else as_numpy(chunk[self._where_column]) != 0
        if self._ids is None:
            return mask_N
        of_ids_N = np.isin(as_numpy(chunk[self.by]), self._ids)
        return of_ids_N if mask_N is None else mask_N & of_ids_N


def _scopes(plan: Plan) -> list[tuple[str | None, str | None]]:
    return list(dict.fromkeys((p.where, p.aggregation.by) for p in plan.planned))


def _key(where: str | None, by: str | None, state: type[State], column: str | None, options: tuple[Any, ...]) -> Any:
    """Operations whose keys are equal share one state."""
    return where, by, state, column, options

"""The aggregation kernel: rows of whole users in, one row per user and as-of date out, exactly.

Rows are counted per user and band of days (``bands``) as they come, in whole numbers (``states``); each date then
takes its windows from the bands. Memory grows with users, bands and different categories per user, never with a
user's events, but for late ones: a row that a date may not know yet waits until the dates before its landing are done.
"""

# N = rows of a chunk, U = users seen so far

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.plan import Plan, Planned, plan_of
from gur_spark.features.declare.spec import Window
from gur_spark.features.operations import Output
from gur_spark.features.states.activity import Activity
from gur_spark.features.states.attributes import HELD, HELD_KNOWN, Attributes
from gur_spark.features.states.base import DAY_US, Source, State, grown
from gur_spark.features.states.counts import Counts, Histogram
from gur_spark.features.states.groups import Groups, Ints, Pairs, Rows, Users, as_numpy
from gur_spark.features.states.tiles import Bands, Slice

AGE, KNOWN = "_age_us", "_known_from"
"""Names that no field can have."""
CHUNK_ROWS = 1 << 20
_EPOCH = date(1970, 1, 1)


def aggregate_partition(
    batches: Iterable[pa.RecordBatch], manifest: Manifest, bands: Bands
) -> Iterator[tuple[date, pa.Table]]:
    """Aggregate one partition that holds all rows of its users: one table per date, oldest first.

    A date's table has the users with an event in its longest window, and those that a row only names, in the order
    of user_id and with the manifest's columns; it may be empty.

    Args:
        batches: columns ``user_id``, ``_age_us`` (microseconds from the event to the newest as_of midnight, from 1 to
            ``bands.days``; null for a row that only names a user), numeric fields as steps, categorical fields as
            ids, what the plan derives, and, where there are several dates, ``_known_from``: how many of them may not
            know the row yet. A row with a value in ``_held_us`` is no event but of attributes (``attributes``).
        manifest: what to compute.

    Raises:
        AggregateOverflow: a sum left its exact range.
    """
    state = PartitionState(manifest, bands)
    state.take(batches)
    yield from state.tables()


def row_without_events(manifest: Manifest) -> pa.RecordBatch:
    """What a snapshot says of a user of whom nothing is known."""
    day = date(2000, 1, 1)
    bands = Bands.of([day], manifest.windows, manifest.declared_windows, day - timedelta(days=1))
    names = [field.name for field in manifest.numeric] + [*manifest.categorical, *plan_of(manifest).derived()]
    user = pa.array([0]).cast(_ARROW_TYPES[manifest.user_id_type])
    rows = pa.RecordBatch.from_pydict({"user_id": user, **{name: pa.nulls(1, pa.int64()) for name in (AGE, *names)}})
    [(_, table)] = aggregate_partition([rows], manifest, bands)
    return table.combine_chunks().to_batches()[0]


def chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches, so that the cost per numpy call is spread over many rows."""
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
    """The counts of all users of one partition."""

    def __init__(self, manifest: Manifest, bands: Bands) -> None:
        self.manifest, self.bands, self.plan = manifest, bands, plan_of(manifest)
        self.users = Users()
        self.named_U = np.zeros(0, np.bool_)
        self.activity = Activity(self.users, bands, Source())
        self.scopes = {scope: _Scope(*scope, self.users, len(bands), self.plan) for scope in _scopes(self.plan)}
        self.attributes = Attributes(self.users, bands, manifest.attributes)
        # Operations on the same values share their state.
        self.states: dict[Any, State] = {_key(None, None, Activity, None, ()): self.activity}
        self._state_of = [self._make_state(planned) for planned in self.plan.planned]
        self.waiting: dict[int, list[pa.Table]] = defaultdict(list)
        self.held_later: dict[int, list[pa.Table]] = defaultdict(list)

    def take(self, batches: Iterable[pa.RecordBatch]) -> None:
        """``update`` with many rows."""
        for chunk in chunks(batches):
            self.update(chunk)

    def update(self, chunk: pa.Table) -> None:
        """Take rows in; those that some date must not see yet wait for ``learn``."""
        codes_N = self.users.encode(chunk["user_id"])
        self.named_U = grown(self.named_U, len(self.users), False)
        if HELD in chunk.column_names:
            held_N = pc.is_valid(chunk[HELD])
            self._hold(chunk.filter(held_N), codes_N[held_N.to_numpy()])
            chunk, codes_N = chunk.filter(pc.invert(held_N)), codes_N[~held_N.to_numpy()]
        if chunk[AGE].null_count:
            known = pc.is_valid(chunk[AGE])
            self.named_U[codes_N[pc.is_null(chunk[AGE]).to_numpy()]] = True
            chunk, codes_N = chunk.filter(known), codes_N[known.to_numpy()]
        if KNOWN in chunk.column_names:
            late_N = self._wait(chunk)
            chunk, codes_N = chunk.filter(pa.array(~late_N)), codes_N[~late_N]
        self._count(chunk, codes_N)

    def learn(self, number: int) -> None:
        """Count the rows that are known from the date of this number on."""
        for chunk in self.waiting.pop(number, []):
            self._count(chunk, self.users.encode(chunk["user_id"]))
        for chunk in self.held_later.pop(number, []):
            self._hold(chunk, self.users.encode(chunk["user_id"]), number)

    def tables(self) -> Iterator[tuple[date, pa.Table]]:
        """Each date with its rows, oldest first; after all rows were taken."""
        for number, as_of in enumerate(self.bands.dates):
            self.learn(number)
            yield as_of, self.finalize(number)

    def finalize(self, number: int) -> pa.Table:
        """The rows of the date of this number."""
        users = len(self.users)
        if not users:
            return _empty_table(self.manifest)
        day = (self.bands.dates[number] - _EPOCH).days
        as_of = pa.array(np.full(users, day, np.int32)).cast(pa.date32())
        columns: dict[str, pa.Array] = {"user_id": self.users.values(), "as_of": as_of}
        usual = self.bands.slices()[number]
        slices: dict[Any, list[_Windows]] = {}
        for planned, state in zip(self.plan.planned, self._state_of, strict=True):
            windows = planned.aggregation.windows
            if windows not in slices:
                slices[windows] = self.bands.nested(number, windows)
            columns |= self._finalize(planned, state, slices[windows], usual)
        for quotient in self.plan.quotients:
            columns[quotient.name] = _quotient(columns[quotient.over[0]], columns[quotient.over[1]], quotient.days)
        columns |= dict(self.attributes.columns(usual))
        table = pa.table({c.name: columns[c.name] for c in self.manifest.columns})
        # Rows come from a shuffle in any order; files with one order make training on them reproducible.
        order = as_numpy(pc.sort_indices(table["user_id"]))
        there_U = self.activity.active(usual) | self.named_U
        return table.take(pa.array(order[there_U[order]]))

    def bytes_per_user_and_event(self) -> tuple[int, int]:
        """What a user and an event take, at most."""
        per_user = per_event = 0
        for (_, by, *_), state in self.states.items():
            days = self.bands.days if isinstance(state, Activity) else 0
            group = state.per_group * len(self.bands) + days
            # A user's event may begin a pair of its own.
            per_user += 0 if by else group
            per_event += state.per_event + (group + 16 if by else 0)
        return per_user, per_event

    def _make_state(self, planned: Planned) -> State:
        a, operation = planned.aggregation, planned.operation
        key = _key(planned.where, a.by, operation.state, operation.column, operation.options())
        if key not in self.states:
            self.states[key] = operation.make_state(self.scopes[planned.where, a.by].groups, self.bands)
        return self.states[key]

    def _finalize(
        self, planned: Planned, state: State, slices: Sequence["_Windows"], usual: Slice
    ) -> dict[str, pa.Array]:
        """An operation's columns."""
        columns = {}
        for of, places in slices:
            found = planned.operation.finalize(state.at(of), of)
            for window, place in places.items():
                for output, values in zip(planned.operation.outputs(), found[place], strict=True):
                    if window in planned.windows:
                        columns[planned.name(output, window)] = self._crossed(planned, output, values, usual)
        return columns

    def _crossed(self, planned: Planned, output: Output, values: pa.Array, usual: Slice) -> pa.Array:
        """One value per (user, id) -> one list per user, beside the ids of its histogram; without ``by``, as it is."""
        by = planned.aggregation.by
        if by is None:
            return values
        counts: Counts = self.states[_key(self.plan.conditions[by], None, Histogram, by, ())].at(usual)
        pairs = self.scopes[planned.where, by].groups
        assert isinstance(pairs, Pairs)
        found = values.take(pairs.find(counts.pair_P))
        if output.null == "never":
            found = pc.fill_null(found, 0)
        if output.dtype == "long":
            found = found.cast(pa.int32())
        return pa.ListArray.from_arrays(pa.array(counts.offsets), found)

    def _hold(self, chunk: pa.Table, codes_N: Ints, known_to: int = 0) -> None:
        """Take rows of attributes in, but for those that only the dates after the one of this number know."""
        known_from_N = as_numpy(chunk[HELD_KNOWN])
        for number in np.unique(known_from_N[known_from_N > known_to]).tolist():
            self.held_later[number].append(chunk.filter(pa.array(known_from_N == number)))
        known_N = known_from_N <= known_to
        chunk, codes_N = chunk.filter(pa.array(known_N)), codes_N[known_N]
        age_N = as_numpy(chunk[HELD])
        self.attributes.update(Rows(chunk, codes_N, age_N, age_N // DAY_US, codes_N))

    def _wait(self, chunk: pa.Table) -> Any:
        """Put rows aside that are in a window of a date which does not know them; tells which, (N,)."""
        known_from_N = as_numpy(chunk[KNOWN])
        day_N = (as_numpy(chunk[AGE]) - 1) // DAY_US
        # The last date that does not know a row: an event on or after it is in none of its windows anyway.
        late_N = (known_from_N > 0) & (day_N >= self.bands.lags[known_from_N - 1])
        # Too old for the dates that do know it: nobody ever sees it.
        seen_N = day_N < self.bands.lags[known_from_N] + self.bands.reach
        for number in np.unique(known_from_N[late_N & seen_N]).tolist():
            self.waiting[number].append(chunk.filter(pa.array(late_N & seen_N & (known_from_N == number))))
        return late_N

    def _count(self, chunk: pa.Table, codes_N: Ints) -> None:
        age_N = as_numpy(chunk[AGE])
        day_N = (age_N - 1) // DAY_US
        band_N = self.bands.of_day[day_N]
        for scope in self.scopes.values():
            rows = scope.rows(chunk, codes_N, age_N, day_N, band_N)
            for (where, by, *_), state in self.states.items():
                if (where, by) == (scope.where, scope.by):
                    state.update(rows)


_Windows = tuple[Slice, dict[Window, int]]
"""A slice, and the place in it of each of its windows."""


class _Scope:
    """Which events are counted, and for whom."""

    def __init__(self, where: str | None, by: str | None, users: Users, bands: int, plan: Plan) -> None:
        self.where, self.by, self._bands = where, by, bands
        self._where_column = plan.where_column(where) if where else None
        self.groups: Groups = Pairs(users) if by else users

    def rows(self, chunk: pa.Table, codes_N: Ints, age_N: Ints, day_N: Ints, band_N: Ints) -> Rows:
        if self._where_column:
            mask_N = as_numpy(chunk[self._where_column]) != 0
            chunk = chunk.filter(pa.array(mask_N))
            codes_N, age_N, day_N, band_N = (v[mask_N] for v in (codes_N, age_N, day_N, band_N))
        group_N = self.groups.encode(codes_N, as_numpy(chunk[self.by])) if isinstance(self.groups, Pairs) else codes_N
        return Rows(chunk, group_N, age_N, day_N, group_N * self._bands + band_N)


def _scopes(plan: Plan) -> list[tuple[str | None, str | None]]:
    return list(dict.fromkeys((p.where, p.aggregation.by) for p in plan.planned))


def _key(where: str | None, by: str | None, state: type[State], column: str | None, options: tuple[Any, ...]) -> Any:
    """States with one key are one."""
    return where, by, state, column, options


def _quotient(above: pa.Array, below: pa.Array, days: tuple[int, int]) -> pa.Array:
    """Null where one of them is, or ``below`` is zero."""
    a, b = (np.nan_to_num(v.cast(pa.float64()).to_numpy(zero_copy_only=False)) for v in (above, below))
    null = above.is_null().to_numpy(zero_copy_only=False) | (b == 0)
    # Adding zero makes -0.0 zero: the two are one number.
    return pa.array((a / days[0]) / np.where(null, 1.0, b / days[1]) + 0.0, mask=null)


_ARROW_TYPES = {
    "long": pa.int64(),
    "double": pa.float64(),
    "array<int>": pa.list_(pa.int32()),
    "array<double>": pa.list_(pa.float64()),
    "date": pa.date32(),
    "string": pa.string(),
}


def _empty_table(manifest: Manifest) -> pa.Table:
    return pa.schema([(c.name, _ARROW_TYPES[c.dtype]) for c in manifest.columns]).empty_table()

"""The aggregation kernel: rows of whole users in, one row per user and as-of date out, exactly.

Rows are counted per user and band of days (``bands``) as they come, in whole numbers (``states``); each date then
takes its windows from the bands. Memory grows with users, bands and different categories per user, never with a
user's events, but for late ones: a row that a date may not know yet waits until the dates before its landing are done.
"""

# N = rows of a chunk, U = users seen so far

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.features.bands import Bands, Slice
from gur_spark.features.states import DAY_US, Activity, Histogram, Ints, NumericState, as_numpy, grown
from gur_spark.schema import Manifest

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
            ids, and, where there are several dates, ``_known_from``: how many of them may not know the row yet.
        manifest: what to compute.

    Raises:
        AggregateOverflow: a sum left its exact range.
    """
    state = PartitionState(manifest, bands)
    for chunk in _chunks(batches):
        state.update(chunk)
    for number, of in enumerate(bands.slices()):
        state.learn(number)
        yield of.as_of, state.finalize(of)


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
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
        self.manifest, self.bands = manifest, bands
        self.users = UserIndex()
        self.named_U = np.zeros(0, np.bool_)
        self.activity = Activity(bands)
        self.numeric = [NumericState(field, bands) for field in manifest.numeric]
        self.histograms = [Histogram(bands) for _ in manifest.categorical]
        self._waiting: dict[int, list[pa.Table]] = defaultdict(list)

    def update(self, chunk: pa.Table) -> None:
        """Take rows in; those that some date must not see yet wait for ``learn``."""
        codes_N = self.users.encode(chunk["user_id"])
        self.named_U = grown(self.named_U, len(self.users), False)
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
        for chunk in self._waiting.pop(number, []):
            self._count(chunk, self.users.encode(chunk["user_id"]))

    def finalize(self, of: Slice) -> pa.Table:
        """One date's rows."""
        users = len(self.users)
        if not users:
            return _empty_table(self.manifest)
        as_of = pa.array(np.full(users, (of.as_of - _EPOCH).days, np.int32)).cast(pa.date32())
        columns: dict[str, pa.Array] = {"user_id": self.users.values(), "as_of": as_of}
        columns |= self.activity.finalize(users, of)
        for state in self.numeric:
            columns |= state.finalize(self.users, of)
        for name, histogram in zip(self.manifest.categorical, self.histograms, strict=True):
            columns |= histogram.finalize(name, users, of)
        table = pa.table({c.name: columns[c.name] for c in self.manifest.columns})
        # Rows come from a shuffle in any order; files with one order make training on them reproducible.
        order = as_numpy(pc.sort_indices(table["user_id"]))
        there_U = self.activity.active(users, of) | self.named_U
        return table.take(pa.array(order[there_U[order]]))

    def _wait(self, chunk: pa.Table) -> Any:
        """Put rows aside that are in a window of a date which does not know them; tells which, (N,)."""
        known_from_N = as_numpy(chunk[KNOWN])
        day_N = (as_numpy(chunk[AGE]) - 1) // DAY_US
        # The last date that does not know a row: an event on or after it is in none of its windows anyway.
        late_N = (known_from_N > 0) & (day_N >= self.bands.lags[known_from_N - 1])
        # Too old for the dates that do know it: nobody ever sees it.
        seen_N = day_N < self.bands.lags[known_from_N] + self.bands.windows[-1]
        for number in np.unique(known_from_N[late_N & seen_N]).tolist():
            self._waiting[number].append(chunk.filter(pa.array(late_N & seen_N & (known_from_N == number))))
        return late_N

    def _count(self, chunk: pa.Table, codes_N: Ints) -> None:
        age_N = as_numpy(chunk[AGE])
        day_N = (age_N - 1) // DAY_US
        slot_N = codes_N * len(self.bands) + self.bands.of_day[day_N]
        self.activity.update(len(self.users), codes_N, age_N, day_N, slot_N)
        for state in self.numeric:
            state.update(self.users, slot_N, chunk[state.field.name])
        for name, histogram in zip(self.manifest.categorical, self.histograms, strict=True):
            histogram.update(slot_N, as_numpy(chunk[name]))


class UserIndex:
    """User ids -> codes 0..U-1 in order of appearance."""

    def __init__(self) -> None:
        self._known: pa.Array | None = None

    def __len__(self) -> int:
        return 0 if self._known is None else len(self._known)

    def encode(self, user_ids: pa.ChunkedArray) -> Ints:
        encoded = user_ids.combine_chunks().dictionary_encode()
        if self._known is None:
            self._known = encoded.dictionary
            return as_numpy(encoded.indices)
        found = pc.index_in(encoded.dictionary, value_set=self._known)
        new = pc.is_null(found)
        code_of_entry = as_numpy(pc.fill_null(found, 0)).copy()
        fresh = new.to_numpy(zero_copy_only=False)
        code_of_entry[fresh] = len(self) + np.arange(int(fresh.sum()))
        self._known = pa.concat_arrays([self._known, encoded.dictionary.filter(new)])
        return code_of_entry[as_numpy(encoded.indices)]

    def values(self) -> pa.Array:
        return self._known

    def name(self, code: int) -> Any:
        assert self._known is not None
        return self._known[code].as_py()


_ARROW_TYPES = {
    "long": pa.int64(),
    "double": pa.float64(),
    "array<int>": pa.list_(pa.int32()),
    "date": pa.date32(),
    "string": pa.string(),
}


def _empty_table(manifest: Manifest) -> pa.Table:
    return pa.schema([(c.name, _ARROW_TYPES[c.dtype]) for c in manifest.columns]).empty_table()

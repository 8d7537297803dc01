"""The aggregation kernel: rows of whole users in, one row per user out, exactly.

Every state is a whole number (counts, sums of fixed-point steps, sums of squares in two
limbs), so the result does not depend on the order of rows, on how they are cut into
batches, or on how many partitions there were. Memory grows with users and with
different categories per user, never with a user's events.

Legend of array shapes:
    N = rows of a chunk          U = users seen so far       D = days of the longest window
    B = bands: the days between two neighbouring windows, so window k is bands 0..k together
    P = different (user, id) pairs of a categorical field
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.errors import AggregateOverflow
from gur_spark.features.exact import SquareSum, exact_sums, overflow, row_overflow, std_steps
from gur_spark.schema import Manifest, NumericField

Ints = np.ndarray[Any, np.dtype[np.int64]]

AGE = "_age_us"
"""A name that no field can have."""
DAY_US = 86_400_000_000
CHUNK_ROWS = 1 << 20
OUTPUT_ROWS = 1 << 14
_NO_MIN, _NO_MAX = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def aggregate_partition(
    batches: Iterable[pa.RecordBatch], manifest: Manifest, as_of_days: int
) -> Iterator[pa.RecordBatch]:
    """Aggregate one partition that holds all rows of its users.

    Args:
        batches: columns ``user_id``, ``_age_us`` (microseconds from the event to as_of midnight, from 1 to
            the longest window; null for a row that only names a user), numeric fields as steps, categorical
            fields as ids.
        manifest: what to compute; gives the columns of the result.
        as_of_days: as_of as days since 1970-01-01.

    Raises:
        AggregateOverflow: a sum left its exact range.
    """
    state = PartitionState(manifest)
    for chunk in _chunks(batches):
        state.update(chunk)
    yield from state.finalize(as_of_days)


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
    """Mergeable state of all users of one partition."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.users = UserIndex()
        self.activity = Activity(manifest.windows)
        self.numeric = [NumericState(f, len(manifest.windows), self.users) for f in manifest.numeric]
        self.histograms = [Histogram(len(manifest.windows)) for _ in manifest.categorical]
        # Band of a day's age: the first window that reaches it.
        self.band_of_day = np.searchsorted(manifest.windows, np.arange(manifest.windows[-1]), side="right")

    def update(self, chunk: pa.Table) -> None:
        codes_N = self.users.encode(chunk["user_id"])
        known = pc.is_valid(chunk[AGE])
        if chunk[AGE].null_count:
            chunk, codes_N = chunk.filter(known), codes_N[known.to_numpy()]
        age_N = _numpy(chunk[AGE])
        day_N = (age_N - 1) // DAY_US
        bands = len(self.manifest.windows)
        slot_N = codes_N * bands + self.band_of_day[day_N]
        self.activity.update(len(self.users), codes_N, age_N, day_N, slot_N)
        for state in self.numeric:
            state.update(slot_N, chunk[state.field.name])
        for name, histogram in zip(self.manifest.categorical, self.histograms, strict=True):
            histogram.update(slot_N, _numpy(chunk[name]))

    def finalize(self, as_of_days: int) -> Iterator[pa.RecordBatch]:
        """The rows of all users in the order of user_id, in the manifest's columns."""
        users = len(self.users)
        if not users:
            return
        columns: dict[str, pa.Array] = {
            "user_id": self.users.values(),
            "as_of": pa.array(np.full(users, as_of_days, np.int32)).cast(pa.date32()),
            **self.activity.finalize(users),
        }
        for state in self.numeric:
            columns |= state.finalize(self.manifest.windows)
        for name, histogram in zip(self.manifest.categorical, self.histograms, strict=True):
            columns |= histogram.finalize(name, users, self.manifest.windows)
        table = pa.table({c.name: columns[c.name] for c in self.manifest.columns})
        # Rows come from a shuffle in any order; files with one order make training on them reproducible.
        table = table.take(pc.sort_indices(table["user_id"]))
        yield from table.to_batches(max_chunksize=OUTPUT_ROWS)


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
            return _numpy(encoded.indices)
        found = pc.index_in(encoded.dictionary, value_set=self._known)
        new = pc.is_null(found)
        code_of_entry = _numpy(pc.fill_null(found, 0)).copy()
        fresh = new.to_numpy(zero_copy_only=False)
        code_of_entry[fresh] = len(self) + np.arange(int(fresh.sum()))
        self._known = pa.concat_arrays([self._known, encoded.dictionary.filter(new)])
        return code_of_entry[_numpy(encoded.indices)]

    def values(self) -> pa.Array:
        return self._known

    def name(self, code: int) -> Any:
        assert self._known is not None
        return self._known[code].as_py()


class Activity:
    """Events and active days per window, first and last event."""

    def __init__(self, windows: tuple[int, ...]) -> None:
        self.windows = windows
        self.events_UB = np.zeros((0, len(windows)), np.int64)
        self.active_UD = np.zeros((0, windows[-1]), np.bool_)
        self.last_U = np.zeros(0, np.int64)
        self.first_U = np.zeros(0, np.int64)

    def update(self, users: int, codes_N: Ints, age_N: Ints, day_N: Ints, slot_N: Ints) -> None:
        self.events_UB = grown(self.events_UB, users, 0)
        self.active_UD = grown(self.active_UD, users, False)
        self.last_U = grown(self.last_U, users, _NO_MIN)
        self.first_U = grown(self.first_U, users, _NO_MAX)
        self.events_UB += np.bincount(slot_N, minlength=self.events_UB.size).reshape(self.events_UB.shape)
        self.active_UD.reshape(-1)[codes_N * self.windows[-1] + day_N] = True
        np.minimum.at(self.last_U, codes_N, age_N)
        np.maximum.at(self.first_U, codes_N, age_N)

    def finalize(self, users: int) -> dict[str, pa.Array]:
        self.update(users, *[np.zeros(0, np.int64)] * 4)
        events_UW = np.cumsum(self.events_UB, axis=1)
        silent = events_UW[:, -1] == 0
        columns = {
            "recency_days": pa.array(self.last_U / DAY_US, mask=silent),
            "tenure_days": pa.array(self.first_U / DAY_US, mask=silent),
        }
        for k, w in enumerate(self.windows):
            columns[f"events_{w}d"] = pa.array(events_UW[:, k])
            columns[f"active_days_{w}d"] = pa.array(self.active_UD[:, :w].sum(axis=1, dtype=np.int64))
        return columns


class NumericState:
    """Count, sum, sum of squares, min and max per user and band, in steps."""

    def __init__(self, field: NumericField, bands: int, users: UserIndex) -> None:
        self.field, self.bands, self.users = field, bands, users
        self.count_UB, self.sum_UB, self.min_UB, self.max_UB = (_empty(bands) for _ in range(4))
        self.square_UB = SquareSum(_empty(bands), _empty(bands))

    def update(self, slot_N: Ints, values: pa.ChunkedArray) -> None:
        self._grow()
        if values.null_count:
            present = pc.is_valid(values)
            slot_N, values = slot_N[present.to_numpy()], values.filter(present)
        if not len(values):
            return
        x_N = _numpy(values)
        counts = np.bincount(slot_N, minlength=self.count_UB.size)
        self.count_UB.reshape(-1)[:] += counts
        sums = exact_sums(slot_N, x_N, counts)
        self._check(overflow(self.sum_UB.reshape(-1), sums))
        self.sum_UB.reshape(-1)[:] += sums
        squares = SquareSum.of(slot_N, x_N, counts)
        self._check(self.square_UB.overflow(squares))
        self.square_UB.add(squares)
        np.minimum.at(self.min_UB.reshape(-1), slot_N, x_N)
        np.maximum.at(self.max_UB.reshape(-1), slot_N, x_N)

    def finalize(self, windows: tuple[int, ...]) -> dict[str, pa.Array]:
        self._grow()
        for sums_UB in (self.sum_UB, self.square_UB.high):
            self._check(row_overflow(sums_UB))
        count_UW = np.cumsum(self.count_UB, axis=1)
        sum_UW = np.cumsum(self.sum_UB, axis=1)
        std_UW = std_steps(count_UW, sum_UW, self.square_UB.cumulative())
        min_UW = np.minimum.accumulate(self.min_UB, axis=1)
        max_UW = np.maximum.accumulate(self.max_UB, axis=1)
        columns = {}
        for k, w in enumerate(windows):
            n, empty = count_UW[:, k], count_UW[:, k] == 0
            at_least_one = np.maximum(n, 1)
            columns[f"{self.field.name}_count_{w}d"] = pa.array(n)
            columns[f"{self.field.name}_sum_{w}d"] = pa.array(self._units(sum_UW[:, k]))
            columns[f"{self.field.name}_mean_{w}d"] = pa.array(self._units(sum_UW[:, k], at_least_one), mask=empty)
            columns[f"{self.field.name}_std_{w}d"] = pa.array(self._units(std_UW[:, k], at_least_one), mask=empty)
            columns[f"{self.field.name}_min_{w}d"] = pa.array(self._units(min_UW[:, k]), mask=empty)
            columns[f"{self.field.name}_max_{w}d"] = pa.array(self._units(max_UW[:, k]), mask=empty)
        return columns

    def _units(self, steps: Any, divisor: Any = 1) -> Any:
        """Steps to units, divided once: exact numerator over exact denominator while both are below 2^53."""
        numerator, denominator = self.field.step.as_integer_ratio()
        return steps.astype(np.float64) * numerator / (np.asarray(divisor, np.float64) * denominator)

    def _grow(self) -> None:
        users = len(self.users)
        self.count_UB = grown(self.count_UB, users, 0)
        self.sum_UB = grown(self.sum_UB, users, 0)
        self.square_UB = SquareSum(grown(self.square_UB.high, users, 0), grown(self.square_UB.low, users, 0))
        self.min_UB = grown(self.min_UB, users, _NO_MIN)
        self.max_UB = grown(self.max_UB, users, _NO_MAX)

    def _check(self, slot: int | None) -> None:
        if slot is not None:
            user = self.users.name(slot // self.bands)
            raise AggregateOverflow(
                f"field '{self.field.name}' of user {user!r}: a sum over its window does not fit exact integers; "
                f"declare a coarser step than {self.field.step}, or bound the values"
            )


class Histogram:
    """Events per (user, id, band), sparse: sorted keys with their counts."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self._parts: list[tuple[Ints, Ints]] = []
        self._loose = 0

    def update(self, slot_N: Ints, ids_N: Ints) -> None:
        # Key = user, id, band from high to low bits, so that sorting groups a user's ids.
        user_N, band_N = np.divmod(slot_N, self.bands)
        self._parts.append(_count_sorted(((user_N << 31) | ids_N) * self.bands + band_N))
        self._loose += len(self._parts[-1][0])
        if self._loose > max(len(self._parts[0][0]), CHUNK_ROWS) and len(self._parts) > 1:
            self._merge()

    def _merge(self) -> None:
        """Join parts; done each time the loose ones outgrow the first, so the cost stays linear."""
        if len(self._parts) > 1:
            keys = np.concatenate([k for k, _ in self._parts])
            counts = np.concatenate([c for _, c in self._parts])
            order = np.argsort(keys, kind="stable")
            starts = _run_starts(keys := keys[order])
            self._parts = [(keys[starts], np.add.reduceat(counts[order], starts))]
        self._loose = 0

    def finalize(self, name: str, users: int, windows: tuple[int, ...]) -> dict[str, pa.Array]:
        self._merge()
        keys, counts = self._parts[0] if self._parts else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        pair_of_key, band = np.divmod(keys, self.bands)
        starts = _run_starts(pair_of_key)
        pairs = pair_of_key[starts]
        row = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(keys))))
        count_PB = np.zeros((len(pairs), self.bands), np.int32)
        count_PB[row, band] = counts
        count_PW = np.cumsum(count_PB, axis=1, dtype=np.int32)
        user_P = pairs >> 31
        offsets = np.append(0, np.cumsum(np.bincount(user_P, minlength=users))).astype(np.int32)
        columns = {f"{name}_ids": _lists(offsets, pairs & (2**31 - 1))}
        for k, w in enumerate(windows):
            columns[f"{name}_counts_{w}d"] = _lists(offsets, count_PW[:, k])
            columns[f"{name}_distinct_{w}d"] = pa.array(np.bincount(user_P[count_PW[:, k] > 0], minlength=users))
        return columns


def grown(array: Any, users: int, fill: Any) -> Any:
    """The array with rows for ``users`` users, new ones filled."""
    missing = users - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.full((missing, *array.shape[1:]), fill, array.dtype)])


def _empty(bands: int) -> Ints:
    return np.zeros((0, bands), np.int64)


def _count_sorted(keys: Ints) -> tuple[Ints, Ints]:
    keys = np.sort(keys)
    starts = _run_starts(keys)
    return keys[starts], np.diff(np.append(starts, len(keys)))


def _run_starts(ordered: Ints) -> Ints:
    """Where runs of equal values begin."""
    if not len(ordered):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _lists(offsets: Any, values: Any) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32)))


def _numpy(values: Any) -> Ints:
    """As int64; the columns that come here have no nulls."""
    array: Ints = np.asarray(values, dtype=np.int64)
    return array

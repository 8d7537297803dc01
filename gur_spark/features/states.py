"""What is counted per user and band: one class per kind of field, each with ``update`` and ``finalize``.

Every state is a whole number (counts, sums of fixed-point steps, sums of squares in two limbs, sorted keys with their
counts), so the result does not depend on the order of rows or on how they are cut into batches.

Legend of array shapes:
    N = rows of a chunk          U = users seen so far       D = days of all windows of all dates
    B = bands of days            W = windows of a date       P = different (user, id) pairs of a categorical field
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.errors import AggregateOverflow
from gur_spark.features.bands import Bands, Slice
from gur_spark.features.exact import SquareSum, exact_sums, overflow, row_overflow, std_steps
from gur_spark.schema import NumericField

Ints = np.ndarray[Any, np.dtype[np.int64]]

DAY_US = 86_400_000_000
MERGE_ROWS = 1 << 20
_NO_MIN, _NO_MAX = np.iinfo(np.int64).max, np.iinfo(np.int64).min
_MISSING = 1 << 62
"""Half way to the ends of int64, so that days can be taken from an age that is not there."""


class Activity:
    """Events, first and last of them per band, and the days with an event."""

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self.events_UB = np.zeros((0, len(bands)), np.int64)
        self.active_UD = np.zeros((0, bands.days), np.bool_)
        self.last_UB = np.zeros((0, len(bands)), np.int64)
        self.first_UB = np.zeros((0, len(bands)), np.int64)

    def update(self, users: int, codes_N: Ints, age_N: Ints, day_N: Ints, slot_N: Ints) -> None:
        self._grow(users)
        self.events_UB += np.bincount(slot_N, minlength=self.events_UB.size).reshape(self.events_UB.shape)
        self.active_UD.reshape(-1)[codes_N * self.bands.days + day_N] = True
        np.minimum.at(self.last_UB.reshape(-1), slot_N, age_N)
        np.maximum.at(self.first_UB.reshape(-1), slot_N, age_N)

    def active(self, users: int, of: Slice) -> Any:
        """Which users have an event in the date's longest window, (U,)."""
        self._grow(users)
        return self.events_UB[:, of.starts[0] : of.starts[-1]].any(axis=1)

    def finalize(self, users: int, of: Slice) -> dict[str, pa.Array]:
        self._grow(users)
        events_UW = np.cumsum(of.by_window(self.events_UB), axis=1)
        silent = events_UW[:, -1] == 0
        lag_us = of.lag * DAY_US
        last_U = of.by_window(self.last_UB, np.minimum).min(axis=1) - lag_us
        first_U = of.by_window(self.first_UB, np.maximum).max(axis=1) - lag_us
        columns = {
            "recency_days": pa.array(last_U / DAY_US, mask=silent),
            "tenure_days": pa.array(first_U / DAY_US, mask=silent),
        }
        for k, w in enumerate(of.windows):
            days_U = self.active_UD[:, of.lag : of.lag + w].sum(axis=1, dtype=np.int64)
            columns |= {f"events_{w}d": pa.array(events_UW[:, k]), f"active_days_{w}d": pa.array(days_U)}
        return columns

    def _grow(self, users: int) -> None:
        self.events_UB = grown(self.events_UB, users, 0)
        self.active_UD = grown(self.active_UD, users, False)
        self.last_UB = grown(self.last_UB, users, _MISSING)
        self.first_UB = grown(self.first_UB, users, -_MISSING)


class NumericState:
    """Count, sum, sum of squares, min and max per user and band, in steps."""

    def __init__(self, field: NumericField, bands: Bands) -> None:
        self.field = field
        self._empty = np.zeros((0, len(bands)), np.int64)
        self.count_UB, self.sum_UB, self.min_UB, self.max_UB = (self._empty for _ in range(4))
        self.square_UB = SquareSum(self._empty, self._empty)

    def update(self, users: Any, slot_N: Ints, values: pa.ChunkedArray) -> None:
        self._grow(len(users))
        if values.null_count:
            present = pc.is_valid(values)
            slot_N, values = slot_N[present.to_numpy()], values.filter(present)
        if not len(values):
            return
        x_N = as_numpy(values)
        counts = np.bincount(slot_N, minlength=self.count_UB.size)
        self.count_UB.reshape(-1)[:] += counts
        sums = exact_sums(slot_N, x_N, counts)
        self._check(users, overflow(self.sum_UB.reshape(-1), sums), self.sum_UB.shape[1])
        self.sum_UB.reshape(-1)[:] += sums
        squares = SquareSum.of(slot_N, x_N, counts)
        self._check(users, self.square_UB.overflow(squares), self.sum_UB.shape[1])
        self.square_UB.add(squares)
        np.minimum.at(self.min_UB.reshape(-1), slot_N, x_N)
        np.maximum.at(self.max_UB.reshape(-1), slot_N, x_N)

    def finalize(self, users: Any, of: Slice) -> dict[str, pa.Array]:
        self._grow(len(users))
        for sums_UB in (self.sum_UB, self.square_UB.high):
            # As floats, which do not wrap; the whole numbers below then do not either.
            self._check(users, row_overflow(of.by_window(sums_UB.astype(np.float64))), len(of.windows))
        sum_UW, squares = of.by_window(self.sum_UB), self.square_UB.map(of.by_window)
        count_UW = np.cumsum(of.by_window(self.count_UB), axis=1)
        sum_UW = np.cumsum(sum_UW, axis=1)
        std_UW = std_steps(count_UW, sum_UW, squares.cumulative())
        min_UW = np.minimum.accumulate(of.by_window(self.min_UB, np.minimum), axis=1)
        max_UW = np.maximum.accumulate(of.by_window(self.max_UB, np.maximum), axis=1)
        columns = {}
        for k, w in enumerate(of.windows):
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

    def _grow(self, users: int) -> None:
        self.count_UB = grown(self.count_UB, users, 0)
        self.sum_UB = grown(self.sum_UB, users, 0)
        self.square_UB = self.square_UB.map(lambda limb: grown(limb, users, 0))
        self.min_UB = grown(self.min_UB, users, _NO_MIN)
        self.max_UB = grown(self.max_UB, users, _NO_MAX)

    def _check(self, users: Any, slot: int | None, width: int) -> None:
        """Raise for the user of a slot of an array ``width`` wide; None is no slot."""
        if slot is not None:
            raise AggregateOverflow(
                f"field '{self.field.name}' of user {users.name(slot // width)!r}: a sum over its window does not fit "
                f"exact integers; declare a coarser step than {self.field.step}, or bound the values"
            )


class Histogram:
    """Events per (user, id, band), sparse: sorted keys with their counts."""

    def __init__(self, bands: Bands) -> None:
        self.bands = len(bands)
        self._parts: list[tuple[Ints, Ints]] = []
        self._loose = 0
        self._split: tuple[Ints, Ints, Ints] | None = None

    def update(self, slot_N: Ints, ids_N: Ints) -> None:
        # Key = user, id, band from high to low bits, so that sorting groups a user's ids.
        user_N, band_N = np.divmod(slot_N, self.bands)
        self._split = None
        self._parts.append(_count_sorted(((user_N << 31) | ids_N) * self.bands + band_N))
        self._loose += len(self._parts[-1][0])
        if self._loose > max(len(self._parts[0][0]), MERGE_ROWS) and len(self._parts) > 1:
            self._merge()

    def finalize(self, name: str, users: int, of: Slice) -> dict[str, pa.Array]:
        pair_N, part_N, count_N = self._inside(of)
        begins_N = _begins(pair_N)
        row_N = np.cumsum(begins_N) - 1
        pair_P = pair_N[begins_N]
        # Counts are whole and far below 2^53: adding them as floats is exact.
        count_WP = np.bincount(part_N * len(pair_P) + row_N, count_N, len(of.windows) * len(pair_P))
        count_WP = np.cumsum(count_WP.astype(np.int32).reshape(len(of.windows), -1), axis=0, dtype=np.int32)
        user_P = pair_P >> 31
        offsets = np.append(0, np.cumsum(np.bincount(user_P, minlength=users))).astype(np.int32)
        columns = {f"{name}_ids": _lists(offsets, (pair_P & (2**31 - 1)).astype(np.int32))}
        for count_P, w in zip(count_WP, of.windows, strict=True):
            distinct = np.append(0, np.cumsum(count_P > 0, dtype=np.int32))[offsets]
            columns[f"{name}_counts_{w}d"] = _lists(offsets, count_P)
            columns[f"{name}_distinct_{w}d"] = pa.array(np.diff(distinct).astype(np.int64))
        return columns

    def _inside(self, of: Slice) -> tuple[Ints, Ints, Ints]:
        """The pair (user and id), part of a window and count of each key in the date's windows."""
        if self._split is None:
            keys, count_N = self._merge()
            pair_N, band_N = np.divmod(keys, self.bands)
            self._split = pair_N, band_N.astype(np.int16), count_N.astype(np.int32)
        pair_N, band_N, count_N = self._split
        part_N = of.part_of_band(self.bands)[band_N]
        inside_N = part_N < len(of.windows)
        if inside_N.all():
            return pair_N, part_N, count_N
        key_N = np.flatnonzero(inside_N)
        return pair_N[key_N], part_N[key_N], count_N[key_N]

    def _merge(self) -> tuple[Ints, Ints]:
        """Join parts; done each time the loose ones outgrow the first, so the cost stays linear."""
        if len(self._parts) > 1:
            keys = np.concatenate([k for k, _ in self._parts])
            counts = np.concatenate([c for _, c in self._parts])
            order = np.argsort(keys, kind="stable")
            starts = np.flatnonzero(_begins(keys := keys[order]))
            self._parts = [(keys[starts], np.add.reduceat(counts[order], starts))]
        self._loose = 0
        return self._parts[0] if self._parts else (np.zeros(0, np.int64), np.zeros(0, np.int64))


def grown(array: Any, users: int, fill: Any) -> Any:
    """The array with rows for ``users`` users, new ones filled."""
    missing = users - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.full((missing, *array.shape[1:]), fill, array.dtype)])


def as_numpy(values: Any) -> Ints:
    """As int64; the columns that come here have no nulls."""
    array: Ints = np.asarray(values, dtype=np.int64)
    return array


def _count_sorted(keys: Ints) -> tuple[Ints, Ints]:
    keys = np.sort(keys)
    starts = np.flatnonzero(_begins(keys))
    return keys[starts], np.diff(np.append(starts, len(keys)))


def _begins(ordered: Ints) -> Any:
    """Whether each value begins a run of equal ones."""
    begins = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return begins


def _lists(offsets: Any, values: Any) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))

"""What is kept of the events of each group and band of days, and what a date's windows make of it.

Every state is whole numbers (counts, sums of fixed-point steps, sorted keys with their counts), so the result depends
neither on the order of rows nor on how they are cut into batches. ``update`` takes events in; the bands of a window
add up (``Slice.by_window``), which is how partial states merge; ``at`` gives the values of one date's windows.

Legend of array shapes:
    N = rows of a chunk          G = groups (users, or users and ids)   D = days of all windows of all dates
    B = bands of days            W = windows of a slice                 P = different (group, id) pairs of a field
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from gur_spark.errors import AggregateOverflow
from gur_spark.features.bands import Bands, Slice
from gur_spark.features.exact import SquareSum, exact_sums, overflow, row_overflow, std_steps, too_large
from gur_spark.features.groups import ID_BITS, Groups, Ints, Rows, as_numpy
from gur_spark.features.shift import Kept, Shift, age_per_band, band_key, per_band, per_day, unmoved
from gur_spark.schema import NumericField

DAY_US = 86_400_000_000
MERGE_ROWS = 1 << 20
_NO_MIN, _NO_MAX = np.iinfo(np.int64).max, np.iinfo(np.int64).min
_MISSING = 1 << 62
"""Half way to the ends of int64, so that days can be taken from an age that is not there."""


@dataclass(frozen=True)
class Source:
    """Where a state's values come from."""

    column: str | None = None
    """A column of the rows; None: the events themselves."""
    numeric: NumericField | None = None
    """The field of a number."""

    def units(self, steps: Any, divisor: Any = 1) -> Any:
        """Steps to units, divided once: exact numerator over exact denominator while both are below 2^53."""
        assert self.numeric is not None
        numerator, denominator = self.numeric.step.as_integer_ratio()
        return steps.astype(np.float64) * numerator / (np.asarray(divisor, np.float64) * denominator)


class State(ABC):
    """Made once per partition; ``update`` any number of times, then ``at`` each date's slices, oldest first."""

    per_group: int = 0
    """Bytes of a group in a band, about."""
    per_event: int = 0
    """Bytes of an event, at most."""
    kept: ClassVar[Kept] = {}
    """The arrays that are all it knows, and what becomes of each on a later date."""

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        self.groups, self.bands, self.source = groups, bands, source
        self._last: tuple[Slice, Any] | None = None

    def update(self, rows: Rows) -> None:
        """Take events in."""
        self._last = None
        self._grow()
        self._add(rows)

    def at(self, of: Slice) -> Any:
        """The values in a slice's windows; those who ask again for the same slice share one answer."""
        if self._last is None or self._last[0] is not of:
            self._grow()
            self._last = of, self._view(of)
        return self._last[1]

    def dump(self) -> dict[str, Any]:
        """All it knows, as arrays by name.

        Raises:
            TypeError: its class does not say which arrays are kept.
        """
        if not self.kept:
            raise TypeError(f"{type(self).__name__} names no arrays in 'kept': aggregates.incremental_days must be 0")
        self._grow()
        return dict(zip(self.kept, self._arrays(), strict=True))

    def load(self, arrays: Mapping[str, Any], shift: Shift) -> None:
        """Know what was dumped on an earlier date, as it looks from the bands of this one."""
        self._restore([move(arrays[name], shift) for name, move in self.kept.items()])

    def _arrays(self) -> Sequence[Any]:
        return [attrgetter(name)(self) for name in self.kept]

    def _restore(self, arrays: Sequence[Any]) -> None:
        for name, array in zip(self.kept, arrays, strict=True):
            *path, last = name.split(".")
            setattr(attrgetter(".".join(path))(self) if path else self, last, array)

    @abstractmethod
    def _add(self, rows: Rows) -> None: ...

    @abstractmethod
    def _view(self, of: Slice) -> Any: ...

    def _grow(self) -> None:  # noqa: B027 - sparse states need no room
        """Make room for new groups."""


@dataclass(frozen=True)
class Visits:
    """When a group was active, in the windows of a slice."""

    of: Slice
    _events_GB: Ints
    _active_GD: Any
    _first_GB: Ints
    _last_GB: Ints

    @cached_property
    def events_GW(self) -> Ints:
        return np.cumsum(self.of.by_window(self._events_GB), axis=1)

    @cached_property
    def days_GW(self) -> Ints:
        """Days with an event."""
        days = [self._active_GD[:, days].sum(axis=1, dtype=np.int64) for days in self.of.days]
        return np.stack(days, axis=1)

    @cached_property
    def first_us_GW(self) -> Ints:
        """From the first event of each window to the date; without meaning where there is none."""
        ages_GW = np.maximum.accumulate(self.of.by_window(self._first_GB, np.maximum), axis=1)
        return ages_GW - self.of.lag * DAY_US

    @cached_property
    def last_us_GW(self) -> Ints:
        """From the last event of each window to the date; without meaning where there is none."""
        ages_GW = np.minimum.accumulate(self.of.by_window(self._last_GB, np.minimum), axis=1)
        return ages_GW - self.of.lag * DAY_US

    @cached_property
    def silent_days_GW(self) -> Ints:
        """The longest run of days without an event inside each window."""
        longest = []
        for days in self.of.days:
            run_G = longest_G = np.zeros(len(self._active_GD), np.int64)
            for active_G in self._active_GD[:, days].T:
                run_G = np.where(active_G, 0, run_G + 1)
                longest_G = np.maximum(longest_G, run_G)
            longest.append(longest_G)
        return np.stack(longest, axis=1)


class Activity(State):
    """Events, first and last of them per band, and the days with an event."""

    per_group = 24
    kept: ClassVar[Kept] = {
        "events_GB": per_band(),
        "active_GD": per_day(),
        "last_GB": age_per_band(_MISSING, np.minimum),
        "first_GB": age_per_band(-_MISSING, np.maximum),
    }

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self.events_GB = np.zeros((0, len(bands)), np.int64)
        self.active_GD = np.zeros((0, bands.days), np.bool_)
        self.last_GB = np.zeros((0, len(bands)), np.int64)
        self.first_GB = np.zeros((0, len(bands)), np.int64)

    def active(self, of: Slice) -> Any:
        """Which groups have an event in the slice's longest window, (G,)."""
        self._grow()
        return self.events_GB[:, of.starts[0] : of.starts[-1]].any(axis=1)

    def _add(self, rows: Rows) -> None:
        slot_N = rows.slot_N
        self.events_GB += np.bincount(slot_N, minlength=self.events_GB.size).reshape(self.events_GB.shape)
        self.active_GD.reshape(-1)[rows.group_N * self.bands.days + rows.day_N] = True
        np.minimum.at(self.last_GB.reshape(-1), slot_N, rows.age_N)
        np.maximum.at(self.first_GB.reshape(-1), slot_N, rows.age_N)

    def _view(self, of: Slice) -> Visits:
        return Visits(of, self.events_GB, self.active_GD, self.first_GB, self.last_GB)

    def _grow(self) -> None:
        groups = len(self.groups)
        self.events_GB = grown(self.events_GB, groups, 0)
        self.active_GD = grown(self.active_GD, groups, False)
        self.last_GB = grown(self.last_GB, groups, _MISSING)
        self.first_GB = grown(self.first_GB, groups, -_MISSING)


@dataclass(frozen=True)
class Numbers:
    """Statistics of a numeric field in the windows of a slice, in steps."""

    count_GW: Ints
    sum_GW: Ints
    squares: SquareSum
    min_GW: Ints
    max_GW: Ints

    @cached_property
    def std_GW(self) -> Any:
        """``count`` times the population standard deviation."""
        return std_steps(self.count_GW, self.sum_GW, self.squares)


class NumericState(State):
    """Count, sum, sum of squares, min and max per band, in steps."""

    per_group = 48
    kept: ClassVar[Kept] = {
        "count_GB": per_band(),
        "sum_GB": per_band(),
        "square_GB.high": per_band(),
        "square_GB.low": per_band(),
        "min_GB": per_band(_NO_MIN, np.minimum),
        "max_GB": per_band(_NO_MAX, np.maximum),
    }

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self._empty = np.zeros((0, len(bands)), np.int64)
        self.count_GB, self.sum_GB, self.min_GB, self.max_GB = (self._empty for _ in range(4))
        self.square_GB = SquareSum(self._empty, self._empty)

    def load(self, arrays: Mapping[str, Any], shift: Shift) -> None:
        """Raises AggregateOverflow, where bands that are one now have a sum that does not fit."""
        for name in ("sum_GB", "square_GB.high"):
            self._check(too_large(shift.bands(arrays[name].astype(np.float64), 0.0, np.add)), len(shift.new))
        super().load(arrays, shift)

    def _add(self, rows: Rows) -> None:
        rows = rows.present(str(self.source.column))
        if not len(rows.slot_N):
            return
        slot_N, x_N = rows.slot_N, as_numpy(rows.table[self.source.column])
        counts = np.bincount(slot_N, minlength=self.count_GB.size)
        self.count_GB.reshape(-1)[:] += counts
        sums = exact_sums(slot_N, x_N, counts)
        self._check(overflow(self.sum_GB.reshape(-1), sums), self.sum_GB.shape[1])
        self.sum_GB.reshape(-1)[:] += sums
        squares = SquareSum.of(slot_N, x_N, counts)
        self._check(self.square_GB.overflow(squares), self.sum_GB.shape[1])
        self.square_GB.add(squares)
        np.minimum.at(self.min_GB.reshape(-1), slot_N, x_N)
        np.maximum.at(self.max_GB.reshape(-1), slot_N, x_N)

    def _view(self, of: Slice) -> Numbers:
        for sums_GB in (self.sum_GB, self.square_GB.high):
            # As floats, which do not wrap; the whole numbers below then do not either.
            self._check(row_overflow(of.by_window(sums_GB.astype(np.float64))), len(of.windows))
        return Numbers(
            count_GW=np.cumsum(of.by_window(self.count_GB), axis=1),
            sum_GW=np.cumsum(of.by_window(self.sum_GB), axis=1),
            squares=self.square_GB.map(of.by_window).cumulative(),
            min_GW=np.minimum.accumulate(of.by_window(self.min_GB, np.minimum), axis=1),
            max_GW=np.maximum.accumulate(of.by_window(self.max_GB, np.maximum), axis=1),
        )

    def _grow(self) -> None:
        groups = len(self.groups)
        self.count_GB = grown(self.count_GB, groups, 0)
        self.sum_GB = grown(self.sum_GB, groups, 0)
        self.square_GB = self.square_GB.map(lambda limb: grown(limb, groups, 0))
        self.min_GB = grown(self.min_GB, groups, _NO_MIN)
        self.max_GB = grown(self.max_GB, groups, _NO_MAX)

    def _check(self, slot: int | None, width: int) -> None:
        """Raise for the group of a slot of an array ``width`` wide; None is no slot."""
        if slot is not None:
            refuse(self.source, self.groups.name(slot // width))


def refuse(source: Source, group: str) -> None:
    """Raises AggregateOverflow, which names field and user."""
    step = source.numeric.step if source.numeric else 1
    raise AggregateOverflow(
        f"field '{source.column}' of user {group}: a sum over its window does not fit "
        f"exact integers; declare a coarser step than {step}, or bound the values"
    )


@dataclass(frozen=True)
class Counts:
    """Events per id of each group, in the windows of a slice; pairs in the order of group and id."""

    pair_P: Ints
    """group << 31 | id, of the ids in the slice's longest window."""
    count_WP: Any
    """int32"""
    groups: int

    @cached_property
    def group_P(self) -> Ints:
        return self.pair_P >> ID_BITS

    @cached_property
    def ids_P(self) -> Any:
        return (self.pair_P & ((1 << ID_BITS) - 1)).astype(np.int32)

    @cached_property
    def offsets(self) -> Any:
        """Where each group's pairs begin, (G + 1,)."""
        return np.append(0, np.cumsum(np.bincount(self.group_P, minlength=self.groups))).astype(np.int32)

    def total_G(self, values_P: Any) -> Any:
        """Whole numbers of each group's pairs, added up."""
        return np.diff(np.append(0, np.cumsum(values_P))[self.offsets])


class Histogram(State):
    """Events per (group, id, band), sparse: sorted keys with their counts."""

    per_event = 16
    kept: ClassVar[Kept] = {"keys": band_key, "counts": unmoved}

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self._parts: list[tuple[Ints, Ints]] = []
        self._loose = 0
        self._split: tuple[Ints, Ints, Ints] | None = None

    def ids(self, rows: Rows) -> tuple[Rows, Ints]:
        """The rows that count, and the id of each; from 0 to 2^31 - 1."""
        return rows, as_numpy(rows.table[self.source.column])

    def _add(self, rows: Rows) -> None:
        rows, ids_N = self.ids(rows)
        if not len(ids_N):
            return
        # Key = group, id, band from high to low bits, so that sorting puts a group's ids together.
        band_N = rows.slot_N - rows.group_N * len(self.bands)
        self._split = None
        self._parts.append(_count_sorted(((rows.group_N << ID_BITS) | ids_N) * len(self.bands) + band_N))
        self._loose += len(self._parts[-1][0])
        if self._loose > max(len(self._parts[0][0]), MERGE_ROWS) and len(self._parts) > 1:
            self._merge()

    def _arrays(self) -> Sequence[Any]:
        return self._merge()

    def _restore(self, arrays: Sequence[Any]) -> None:
        keys, counts = arrays
        if len(keys):
            # In order already; those of bands that are one now are equal.
            starts = np.flatnonzero(begins(keys))
            self._parts = [(keys[starts], np.add.reduceat(counts, starts))]

    def _view(self, of: Slice) -> Counts:
        pair_N, part_N, count_N = self._inside(of)
        begins_N = begins(pair_N)
        row_N = np.cumsum(begins_N) - 1
        pair_P = pair_N[begins_N]
        # Counts are whole and far below 2^53: adding them as floats is exact.
        count_WP = np.bincount(part_N * len(pair_P) + row_N, count_N, len(of.windows) * len(pair_P))
        cumulative_WP = count_WP.astype(np.int32).reshape(len(of.windows), -1)
        for shorter, longer in pairwise(cumulative_WP):
            # Row by row: numpy's running sum goes down each column, ten times as slow.
            np.add(longer, shorter, out=longer)
        return Counts(pair_P, cumulative_WP, len(self.groups))

    def _inside(self, of: Slice) -> tuple[Ints, Ints, Ints]:
        """The pair (group and id), part of a window and count of each key in the slice's windows."""
        if self._split is None:
            keys, count_N = self._merge()
            pair_N, band_N = np.divmod(keys, len(self.bands))
            self._split = pair_N, band_N.astype(np.int16), count_N.astype(np.int32)
        pair_N, band_N, count_N = self._split
        part_N = of.part_of_band(len(self.bands))[band_N]
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
            starts = np.flatnonzero(begins(keys := keys[order]))
            self._parts = [(keys[starts], np.add.reduceat(counts[order], starts))]
        self._loose = 0
        return self._parts[0] if self._parts else (np.zeros(0, np.int64), np.zeros(0, np.int64))


def grown(array: Any, groups: int, fill: Any) -> Any:
    """The array with rows for so many groups, new ones filled."""
    missing = groups - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.full((missing, *array.shape[1:]), fill, array.dtype)])


def begins(ordered: Ints) -> Any:
    """Whether each value begins a run of equal ones."""
    there = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=there[1:])
    return there


def _count_sorted(keys: Ints) -> tuple[Ints, Ints]:
    keys = np.sort(keys)
    starts = np.flatnonzero(begins(keys))
    return keys[starts], np.diff(np.append(starts, len(keys)))

"""States: partial aggregates of the events of each group and tile, from which the windows of a date are computed.

A state holds whole numbers only (counts, sums of fixed-point steps, sorted keys with their counts), so a result depends
neither on the order of rows nor on how they are cut into batches. ``update`` takes events in, ``merge`` adds the state
of other rows, and ``at`` gives the values of one date's windows, which are sums over tiles (``DateWindows.by_part``).

The states are in ``activity``, ``numbers``, ``counts``, ``daily``, ``tallies``, ``sketches``, ``sequence`` and
``attributes``.

Legend of array shapes:
    N = rows of a chunk          G = groups (users, or users and ids)   D = days of all windows of all dates
    B = tiles                    W = windows of a date                  P = different (group, id) pairs of a field
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.declare.manifest import NumericField
from gur_spark.features.states.advance import Advance, ArrayRules
from gur_spark.features.states.groups import Groups, PlacedRows
from gur_spark.features.states.tiles import HOUR_US, DateWindows, Tiles

DAY_US = 24 * HOUR_US
"""Microseconds of a day."""
MERGE_ROWS = 1 << 20
"""Loose rows of a sparse state that are collected before they are merged, at least."""


@dataclass(frozen=True)
class ValueColumn:
    """The column that a state reads its values from."""

    column: str | None = None
    """Name of a column of the rows; None where a state counts events and reads no value."""
    numeric: NumericField | None = None
    """The field, if the values are numbers."""

    def units(self, steps: Any, divisor: Any = 1) -> Any:
        """Convert steps to units and divide, with one rounding while numerator and denominator are below 2^53."""
        assert self.numeric is not None
        numerator, denominator = self.numeric.step.as_integer_ratio()
        return steps.astype(np.float64) * numerator / (np.asarray(divisor, np.float64) * denominator)


class State(ABC):
    """Partial aggregate of one partition: ``update`` any number of times, then ``at`` for each date, oldest first."""

    per_group: int = 0
    """Bytes that a group takes in each tile, about."""
    per_event: int = 0
    """Bytes that an event takes, at most."""
    stored: ClassVar[ArrayRules] = {}
    """Attributes that hold the whole state as arrays, and the rule of each."""

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        self.groups, self.tiles, self.value = groups, tiles, value
        self._last: tuple[DateWindows, Any] | None = None

    def update(self, rows: PlacedRows) -> None:
        """Take rows in."""
        self._last = None
        self._grow()
        self._add(rows)

    def at(self, windows: DateWindows) -> Any:
        """The values in a date's windows; operations that ask for the same windows share one result."""
        if self._last is None or self._last[0] is not windows:
            self._grow()
            self._last = windows, self._view(windows)
        return self._last[1]

    def dump(self) -> dict[str, Any]:
        """The whole state as arrays by name.

        Raises:
            TypeError: the class does not name its arrays in ``stored``.
        """
        if not self.stored:
            raise TypeError(f"{type(self).__name__} names no arrays in 'stored': aggregates.incremental_days must be 0")
        self._grow()
        return dict(zip(self.stored, self._arrays(), strict=True))

    def load(self, arrays: Mapping[str, Any], advance: Advance) -> None:
        """Take over what was dumped at an earlier date, moved to the tiles of this state."""
        self._restore([rule.advance(arrays[name], advance) for name, rule in self.stored.items()])

    @classmethod
    def can_merge(cls) -> bool:
        """Whether the class has the rules that ``merge`` needs."""
        return bool(cls.stored) and all(rule.combine for rule in cls.stored.values())

    def merge(self, arrays: Mapping[str, Any], code_G: Ints) -> None:
        """Add the dumped state of other rows, with the same tiles.

        Args:
            code_G: the group here that each of the other state's groups is.
        """
        self._last = None
        self._grow()
        merged = self._arrays()
        for mine, theirs, rule in zip(merged, arrays.values(), self.stored.values(), strict=True):
            assert rule.combine
            mine[code_G] = rule.combine(mine[code_G], theirs)

    def _arrays(self) -> Sequence[Any]:
        return [attrgetter(name)(self) for name in self.stored]

    def _restore(self, arrays: Sequence[Any]) -> None:
        for name, array in zip(self.stored, arrays, strict=True):
            *path, last = name.split(".")
            setattr(attrgetter(".".join(path))(self) if path else self, last, array)

    @abstractmethod
    def _add(self, rows: PlacedRows) -> None:
        """Take rows in, after ``_grow``."""

    @abstractmethod
    def _view(self, windows: DateWindows) -> Any:
        """Compute what ``at`` gives."""

    def _grow(self) -> None:  # noqa: B027 - sparse states need no room
        """Make room for new groups."""


class SparseState(State):
    """A state of parallel arrays in the order of groups.

    The first array holds keys. Each group has a range of keys of its own.
    """

    @classmethod
    def can_merge(cls) -> bool:
        return bool(cls.stored)

    def merge(self, arrays: Mapping[str, Any], code_G: Ints) -> None:
        self._last = None
        keys, *others = arrays.values()
        group_N = keys // self._keys_of_group
        of_group_N = code_G[group_N]
        keys = keys + (of_group_N - group_N) * self._keys_of_group
        # The order inside a group stays as it is.
        order = np.argsort(of_group_N, kind="stable")
        self._join([array[order] for array in (keys, *others)])

    @property
    @abstractmethod
    def _keys_of_group(self) -> int:
        """Size of a group's range: the keys of group g begin with g times this number."""

    @abstractmethod
    def _join(self, arrays: Sequence[Any]) -> None:
        """Add another state's arrays, whose groups and keys are already those of this state."""


def grown(array: Any, groups: int, fill: Any) -> Any:
    """The array with one row for each of so many groups; new rows hold ``fill``."""
    missing = groups - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.full((missing, *array.shape[1:]), fill, array.dtype)])


def begins(ordered: Ints) -> Any:
    """True where a value differs from the one before it, so that a run of equal values begins there."""
    there = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=there[1:])
    return there

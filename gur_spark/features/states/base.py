"""What a state is: what is kept of the events of each group and band of days, and what a date's windows make of it.

Every state is whole numbers (counts, sums of fixed-point steps, sorted keys with their counts), so the result depends
neither on the order of rows nor on how they are cut into batches. ``update`` takes events in; the bands of a window
add up (``Slice.by_window``); states of parts of the rows ``merge``; ``at`` gives the values of one date's windows.

The states are in ``activity``, ``numbers``, ``counts``, ``tallies``, ``sequence`` and ``attributes``.

Legend of array shapes:
    N = rows of a chunk          G = groups (users, or users and ids)   D = days of all windows of all dates
    B = bands of days            W = windows of a slice                 P = different (group, id) pairs of a field
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from gur_spark.features.declare.manifest import NumericField
from gur_spark.features.states.advance import Kept, Shift
from gur_spark.features.states.groups import Groups, Ints, Rows
from gur_spark.features.states.tiles import Bands, Slice

DAY_US = 86_400_000_000
MERGE_ROWS = 1 << 20


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
        self._restore([kind.moved(arrays[name], shift) for name, kind in self.kept.items()])

    @classmethod
    def merges(cls) -> bool:
        """Whether its class says how what two states know becomes one."""
        return bool(cls.kept) and all(kind.together for kind in cls.kept.values())

    def merge(self, arrays: Mapping[str, Any], code_G: Ints) -> None:
        """Know also what another state of the same bands dumped, whose group g is group ``code_G[g]`` here."""
        self._last = None
        self._grow()
        merged = self._arrays()
        for mine, theirs, kind in zip(merged, arrays.values(), self.kept.values(), strict=True):
            assert kind.together
            mine[code_G] = kind.together(mine[code_G], theirs)

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


class Keyed(State):
    """Arrays side by side, in the order of groups; the first holds keys, of which a group has a range of its own."""

    @classmethod
    def merges(cls) -> bool:
        return bool(cls.kept)

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
        """Group g has the keys from g times this number on."""

    @abstractmethod
    def _join(self, arrays: Sequence[Any]) -> None:
        """Take such arrays in beside the own ones."""


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

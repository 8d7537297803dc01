"""Activity of a group: number of events, days with an event, first and last event, days of silence.

Legend of array shapes: N = rows, G = groups, B = tiles, W = windows of a date, D = days of all windows of all dates.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.states.advance import ArrayRules, age_per_tile, per_day, per_tile
from gur_spark.features.states.base import State, ValueColumn, grown
from gur_spark.features.states.groups import Groups, PlacedRows
from gur_spark.features.states.tiles import DateWindows, Tiles

_MISSING = 1 << 62
"""Age where there is no event: far from the ends of int64, so that adding or subtracting days cannot wrap."""


@dataclass(frozen=True)
class Visits:
    """Activity of each group in a date's windows."""

    windows: DateWindows
    _events_GB: Ints
    _active_GD: Any
    _first_GB: Ints
    _last_GB: Ints

    @cached_property
    def events_GW(self) -> Ints:
        return np.cumsum(self.windows.by_part(self._events_GB), axis=1)

    @cached_property
    def days_GW(self) -> Ints:
        """Number of UTC days with an event. A day that is partly in a window counts if that part has an event."""
        days = [self._active_GD[:, days].sum(axis=1, dtype=np.int64) for days in self.windows.days]
        for number, pieces in enumerate(self.windows.pieces):
            for tiles in pieces:
                days[number] = days[number] + self._events_GB[:, tiles].any(axis=1)
        return np.stack(days, axis=1)

    @cached_property
    def first_us_GW(self) -> Ints:
        """Microseconds from the first event of each window to the date; meaningless where there is no event."""
        ages_GW = np.maximum.accumulate(self.windows.by_part(self._first_GB, np.maximum), axis=1)
        return ages_GW - self.windows.lag_us

    @cached_property
    def last_us_GW(self) -> Ints:
        """Microseconds from the last event of each window to the date; meaningless where there is no event."""
        ages_GW = np.minimum.accumulate(self.windows.by_part(self._last_GB, np.minimum), axis=1)
        return ages_GW - self.windows.lag_us

    @cached_property
    def silent_days_GW(self) -> Ints:
        """Length of the longest run of days without an event inside each window of whole days."""
        longest = []
        for days in self.windows.days:
            run_G = longest_G = np.zeros(len(self._active_GD), np.int64)
            for active_G in self._active_GD[:, days].T:
                run_G = np.where(active_G, 0, run_G + 1)
                longest_G = np.maximum(longest_G, run_G)
            longest.append(longest_G)
        return np.stack(longest, axis=1)


class Activity(State):
    """Number of events, first and last event per tile, and the days with an event."""

    per_group = 24
    stored: ClassVar[ArrayRules] = {
        "events_GB": per_tile(),
        "active_GD": per_day(False, np.logical_or),
        "last_GB": age_per_tile(_MISSING, np.minimum),
        "first_GB": age_per_tile(-_MISSING, np.maximum),
    }

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn) -> None:
        super().__init__(groups, tiles, value)
        self.events_GB = np.zeros((0, len(tiles)), np.int64)
        self.active_GD = np.zeros((0, tiles.days), np.bool_)
        self.last_GB = np.zeros((0, len(tiles)), np.int64)
        self.first_GB = np.zeros((0, len(tiles)), np.int64)

    def active(self, windows: DateWindows) -> Any:
        """True for groups with an event in the longest window, (G,)."""
        self._grow()
        return self.events_GB[:, windows.starts[0] : windows.starts[-1]].any(axis=1)

    def _add(self, rows: PlacedRows) -> None:
        slot_N = rows.slot_N
        self.events_GB += np.bincount(slot_N, minlength=self.events_GB.size).reshape(self.events_GB.shape)
        day_N = rows.unit_N if self.tiles.day_units == 1 else rows.unit_N // self.tiles.day_units
        self.active_GD.reshape(-1)[rows.group_N * self.tiles.days + day_N] = True
        np.minimum.at(self.last_GB.reshape(-1), slot_N, rows.age_N)
        np.maximum.at(self.first_GB.reshape(-1), slot_N, rows.age_N)

    def _view(self, windows: DateWindows) -> Visits:
        return Visits(windows, self.events_GB, self.active_GD, self.first_GB, self.last_GB)

    def _grow(self) -> None:
        groups = len(self.groups)
        self.events_GB = grown(self.events_GB, groups, 0)
        self.active_GD = grown(self.active_GD, groups, False)
        self.last_GB = grown(self.last_GB, groups, _MISSING)
        self.first_GB = grown(self.first_GB, groups, -_MISSING)

"""When a group was active: events, days with an event, the first and the last, silences.

Legend of array shapes: N = rows, G = groups, B = bands, W = windows of a slice, D = days of all windows of all dates.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gur_spark.features.states.advance import Kept, age_per_band, per_band, per_day
from gur_spark.features.states.base import DAY_US, Source, State, grown
from gur_spark.features.states.groups import Groups, Ints, Rows
from gur_spark.features.states.tiles import Bands, Slice

_MISSING = 1 << 62
"""Half way to the ends of int64, so that days can be taken from an age that is not there."""


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
        "active_GD": per_day(False, np.logical_or),
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

"""Tiles: runs of days, or of hours, cut so that each window of each as-of date is a run of whole tiles.

An event is counted once, in its tile, and a date's windows are sums over runs of tiles. So one pass over the events
serves any number of dates.

Time is counted backwards from the newest date in units: in days, or in hours where a window has no whole days. The last
unit before the newest date is unit 0, and later dates come first.

Legend of array shapes: D = units, B = tiles, W = windows of a date, G = groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.declare.windows import DAY_HOURS, Window, hours_of, name_of

HOUR_US = 3_600_000_000
"""Microseconds of an hour."""


@dataclass(frozen=True)
class DateWindows:
    """Windows of one date that end at the same time, each a run of tiles."""

    as_of: date
    lag: int
    """Units from this date to the newest."""
    lengths: tuple[int, ...]
    """Units of each window, ascending."""
    starts: Ints
    """Tile at which each part of a window begins, and the tile at which the longest window ends, (W + 1,).

    Part k holds the units that window k has and shorter windows have not.
    """
    before: int = 0
    """Units from the windows' end to the date."""
    unit_hours: int = DAY_HOURS
    """Hours of a unit."""
    pieces: tuple[tuple[slice, ...], ...] = ()
    """Tiles of each part of a day at a window's ends, for each window; empty where all windows have whole days."""

    @property
    def lag_us(self) -> int:
        """Microseconds from this date to the newest."""
        return self.lag * self.unit_hours * HOUR_US

    @property
    def units(self) -> list[slice]:
        """The units of each window."""
        end = self.lag + self.before
        return [slice(end, end + length) for length in self.lengths]

    @property
    def days(self) -> list[slice]:
        """The whole UTC days of each window. Parts of days at its ends are in ``pieces``."""
        return [_whole_days(units, DAY_HOURS // self.unit_hours) for units in self.units]

    def by_part(self, values_GB: Any, ufunc: np.ufunc = np.add) -> Any:
        """Combine the tiles of each part, (G, W). Window k is the parts 0 to k together."""
        inside = values_GB[:, self.starts[0] : self.starts[-1]]
        if inside.shape[1] == len(self.lengths):
            return inside
        return ufunc.reduceat(inside, self.starts[:-1] - self.starts[0], axis=1)

    def part_of_tile(self, tiles: int) -> Ints:
        """The part that each tile is in; W for a tile outside the date's windows."""
        part = np.searchsorted(self.starts, np.arange(tiles), side="right") - 1
        return np.where(part < 0, len(self.lengths), part)


@dataclass(frozen=True)
class Tiles:
    """Tiles for some as-of dates that have the same windows.

    Dates and windows are ascending. The longest windows of neighbouring dates leave no time between them.
    """

    dates: tuple[date, ...]
    windows: tuple[int | str, ...]
    """Lengths: days, or a text such as ``6h``."""
    more: tuple[Window, ...] = ()
    """Windows of declared features: of another length, shifted, or from the first event on."""
    oldest: date | None = None
    """Day of the first event. It is needed where a window begins with the first event."""
    horizon: int = 0
    """Days after the newest date on which ``advanced`` can be called: their windows are runs of whole tiles, too."""
    base: "Tiles | None" = None
    """The earlier tiles that these were made from by ``advanced``."""

    def __len__(self) -> int:
        return len(self._edges) - 1

    @classmethod
    def of(
        cls,
        dates: Sequence[date],
        windows: Sequence[int | str],
        more: Iterable[Window] = (),
        oldest: date | None = None,
        horizon: int = 0,
    ) -> "Tiles":
        """Tiles of some dates, given in any order.

        Raises:
            ValueError: the longest windows of two neighbouring dates leave time between them.
        """
        made = cls(tuple(sorted(set(dates))), tuple(windows), tuple(more), oldest, horizon)
        for earlier, later in pairwise(made.dates):
            if (later - earlier).days * DAY_HOURS > hours_of(made.windows[-1]):
                raise ValueError(f"the windows of {earlier} and {later} leave a gap: these are two passes")
        return made

    def advanced(self, as_of: date, oldest: date | None = None) -> "Tiles":
        """Tiles of one date at most ``horizon`` days later, with one tile for all time before its windows.

        Each tile of ``self`` lies inside one of the new tiles.

        Args:
            oldest: day of the first event that came since, where a window begins with the first event.

        Raises:
            ValueError: the date is not later, or beyond the horizon.
        """
        if not 0 < (as_of - self.newest).days <= self.horizon:
            raise ValueError(f"{as_of} is not one of the {self.horizon} days after {self.newest}")
        first = min((day for day in (self.oldest, oldest) if day), default=None)
        return replace(self, dates=(as_of,), oldest=first, horizon=0, base=self)

    @property
    def newest(self) -> date:
        return self.dates[-1]

    @cached_property
    def unit_hours(self) -> int:
        """Hours of a unit: those of a day, or 1 where a window has no whole days."""
        whole = all(isinstance(w, int) for w in self.windows) and all(w.whole_days for w in self.more)
        return DAY_HOURS if whole else 1

    @property
    def unit_us(self) -> int:
        """Microseconds of a unit."""
        return self.unit_hours * HOUR_US

    @property
    def day_units(self) -> int:
        """Units of a day."""
        return DAY_HOURS // self.unit_hours

    @property
    def units(self) -> int:
        """Units from the beginning of the longest window to the newest date."""
        return int(self._edges[-1])

    @property
    def days(self) -> int:
        """Days from the first day of the longest window to the newest date."""
        return -(-self.units // self.day_units)

    @cached_property
    def of_unit(self) -> Ints:
        """The tile that each unit is in, (D,)."""
        return np.searchsorted(self._edges, np.arange(self.units), side="right") - 1

    @cached_property
    def lags(self) -> Ints:
        """Units from each date to the newest one."""
        return np.array([(self.newest - day).days * self.day_units for day in self.dates])

    @cached_property
    def reach(self) -> int:
        """Units from the beginning of a date's longest window to the date."""
        ends = [end for _, end in self._spans if end is not None]
        return max(self.units if self._endless else 0, *ends)

    def standard_windows(self) -> list[DateWindows]:
        """The standard windows of each date, oldest date first."""
        lengths = [self._in_units(hours_of(length)) for length in self.windows]
        return [self._date_windows(number, lengths) for number in range(len(self.dates))]

    def by_end(self, number: int, windows: Sequence[Window]) -> list[tuple[DateWindows, dict[Window, int]]]:
        """Windows of a date, put together where they end at the same time.

        Beside each ``DateWindows`` is the place in it of each of its windows. Two windows of the same length share a
        place: one of them has a length, the other begins with the first event.

        Args:
            number: place of the date among ``dates``.
        """
        made = []
        for gap in dict.fromkeys(w.gap for w in windows):
            lengths = {w: self.length(number, w) for w in windows if w.gap == gap}
            different = sorted(set(lengths.values()))
            places = {w: different.index(length) for w, length in lengths.items()}
            made.append((self._date_windows(number, different, self._in_units(gap)), places))
        return made

    def length(self, number: int, window: Window) -> int:
        """Units of a window of a date; one without a length begins with the first event."""
        if window.length is not None:
            return self._in_units(window.length)
        return max(self.units - int(self.lags[number]) - self._in_units(window.gap), 1)

    def _in_units(self, hours: int) -> int:
        assert hours % self.unit_hours == 0, name_of(hours)
        return hours // self.unit_hours

    def _date_windows(self, number: int, lengths: Sequence[int], before: int = 0) -> DateWindows:
        lag = int(self.lags[number])
        starts = np.searchsorted(self._edges, lag + before + np.array([0, *lengths]))
        made = DateWindows(self.dates[number], lag, tuple(lengths), starts, before, self.unit_hours)
        if self.day_units == 1:
            return made
        pieces = [_parts_of_days(units, self.day_units) for units in made.units]
        tiles = [tuple(slice(*np.searchsorted(self._edges, piece)) for piece in of_window) for of_window in pieces]
        return replace(made, pieces=tuple(tiles))

    @cached_property
    def _endless(self) -> bool:
        return any(end is None for _, end in self._spans)

    @cached_property
    def _spans(self) -> list[tuple[int, int | None]]:
        """Units from each window's end and beginning to its date; None: it begins with the first event."""
        usual = [(0, self._in_units(hours_of(length))) for length in self.windows]
        gaps = [(self._in_units(w.gap), w) for w in self.more]
        return usual + [(gap, None if w.length is None else gap + self._in_units(w.length)) for gap, w in gaps]

    @cached_property
    def _edges(self) -> Ints:
        """Unit at which each tile begins, and the end of the last tile, (B + 1,)."""
        edges = self._edges_of_windows()
        if self.base is not None:
            edges.add(self.base.units + (self.newest - self.base.newest).days * self.day_units)
        if self._endless:
            assert self.oldest is not None  # a caller with such a window knows the first event
            days = max((self.newest - self.oldest).days, -(-max(edges) // self.day_units))
            edges.add(days * self.day_units)
        return np.array(sorted(edges))

    def _edges_of_windows(self) -> set[int]:
        # A window without a beginning may have a part of a day at its end alone.
        spans = [
            (end, (end // self.day_units + 1) * self.day_units if start is None else start)
            for end, start in self._spans
        ]
        # A part of a day has tiles of its own, so that they say whether it has an event.
        spans += [piece for span in spans for piece in _parts_of_days(slice(*span), self.day_units)]
        edges = {int(lag) + edge for lag in self.lags for span in spans for edge in span}
        # The windows of a date n days later begin and end n days nearer to these dates.
        return {max(edge - days * self.day_units, 0) for edge in edges for days in range(self.horizon + 1)}


def _whole_days(units: slice, day_units: int) -> slice:
    """The whole days among some units."""
    first, last = -(-units.start // day_units), units.stop // day_units
    return slice(first, max(first, last))


def _parts_of_days(units: slice, day_units: int) -> list[tuple[int, int]]:
    """Runs among some units that are parts of a day: at the ends of the run, or the whole of it."""
    days = _whole_days(units, day_units)
    first, last = days.start * day_units, days.stop * day_units
    if first > units.stop:
        return [(units.start, units.stop)]
    return [(a, b) for a, b in ((units.start, first), (last, units.stop)) if a < b]

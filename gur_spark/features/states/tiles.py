"""Tiles: runs of days, cut so that each window of each as-of date is a run of whole tiles.

An event is counted once, in its tile, and a date's windows are sums over runs of tiles. So one pass over the events
serves any number of dates.

Days are counted backwards from the newest date: its eve is day 0, and later dates come first.

Legend of array shapes: D = days, B = tiles, W = windows of a date, G = groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.declare.spec import Window


@dataclass(frozen=True)
class DateWindows:
    """Windows of one date that end on the same day, each a run of tiles."""

    as_of: date
    lag: int
    """Days from this date to the newest."""
    lengths: tuple[int, ...]
    """Days of each window, ascending."""
    starts: Ints
    """Tile at which each part of a window begins, and the tile at which the longest window ends, (W + 1,).

    Part k holds the days that window k has and shorter windows have not.
    """
    before: int = 0
    """Days from the windows' end to the date."""

    @property
    def days(self) -> list[slice]:
        """The days of each window."""
        end = self.lag + self.before
        return [slice(end, end + length) for length in self.lengths]

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

    Dates and windows are ascending. The longest windows of neighbouring dates leave no day between them.
    """

    dates: tuple[date, ...]
    windows: tuple[int, ...]
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
        windows: Sequence[int],
        more: Iterable[Window] = (),
        oldest: date | None = None,
        horizon: int = 0,
    ) -> "Tiles":
        """Tiles of some dates, given in any order.

        Raises:
            ValueError: the longest windows of two neighbouring dates leave days between them.
        """
        made = cls(tuple(sorted(set(dates))), tuple(windows), tuple(more), oldest, horizon)
        for earlier, later in pairwise(made.dates):
            if (later - earlier).days > made.windows[-1]:
                raise ValueError(f"the windows of {earlier} and {later} leave a gap: these are two passes")
        return made

    def advanced(self, as_of: date, oldest: date | None = None) -> "Tiles":
        """Tiles of one date at most ``horizon`` days later, with one tile for all days before its windows.

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

    @property
    def days(self) -> int:
        """Days from the first day of the longest window to the newest date."""
        return int(self._edges[-1])

    @cached_property
    def of_day(self) -> Ints:
        """The tile that each day is in, (D,)."""
        return np.searchsorted(self._edges, np.arange(self.days), side="right") - 1

    @cached_property
    def lags(self) -> Ints:
        """Days from each date to the newest one."""
        return np.array([(self.newest - day).days for day in self.dates])

    @cached_property
    def reach(self) -> int:
        """Days from the beginning of a date's longest window to the date."""
        ends = [w.before + w.days for w in self.more if w.days is not None]
        return max(self.days if self._endless else 0, self.windows[-1], *ends)

    def standard_windows(self) -> list[DateWindows]:
        """The standard windows of each date, oldest date first."""
        return [self._date_windows(number, self.windows) for number in range(len(self.dates))]

    def by_end(self, number: int, windows: Sequence[Window]) -> list[tuple[DateWindows, dict[Window, int]]]:
        """Windows of a date, put together where they end on the same day.

        Beside each ``DateWindows`` is the place in it of each of its windows. Two windows of the same length share a
        place: one of them has a number of days, the other begins with the first event.

        Args:
            number: place of the date among ``dates``.
        """
        made = []
        for before in dict.fromkeys(w.before for w in windows):
            lengths = {w: self.length(number, w) for w in windows if w.before == before}
            different = sorted(set(lengths.values()))
            places = {w: different.index(length) for w, length in lengths.items()}
            made.append((self._date_windows(number, different, before), places))
        return made

    def length(self, number: int, window: Window) -> int:
        """Days of a window of a date; one without a number of days begins with the first event."""
        return window.days or max(self.days - int(self.lags[number]) - window.before, 1)

    def _date_windows(self, number: int, lengths: Sequence[int], before: int = 0) -> DateWindows:
        lag = int(self.lags[number])
        starts = np.searchsorted(self._edges, lag + before + np.array([0, *lengths]))
        return DateWindows(self.dates[number], lag, tuple(lengths), starts, before)

    @cached_property
    def _endless(self) -> bool:
        return any(w.days is None for w in self.more)

    @cached_property
    def _edges(self) -> Ints:
        """Day at which each tile begins, and the end of the last tile, (B + 1,)."""
        edges = self._edges_of_windows()
        if self.base is not None:
            edges.add(self.base.days + (self.newest - self.base.newest).days)
        if self._endless:
            assert self.oldest is not None  # a caller with such a window knows the first event
            edges.add(max(*edges, (self.newest - self.oldest).days))
        return np.array(sorted(edges))

    def _edges_of_windows(self) -> set[int]:
        usual = [(0, length) for length in self.windows]
        ends = [(w.before, w.before + w.days) for w in self.more if w.days is not None]
        endless = [(w.before, w.before + 1) for w in self.more if w.days is None]
        edges = {int(lag) + edge for lag in self.lags for span in usual + ends + endless for edge in span}
        # The windows of a date n days later begin and end n days nearer to these dates.
        return {max(edge - days, 0) for edge in edges for days in range(self.horizon + 1)}

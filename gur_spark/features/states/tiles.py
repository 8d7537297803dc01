"""Days cut into bands, so that each window of each as-of date is a run of whole bands.

An event is counted once, in its band; a date's windows are sums over runs of bands. One pass over the events
therefore serves any number of dates.

Legend: ages are days before the newest date (its eve is day 0), so later dates come first. D = days, B = bands,
W = windows of a date, U = users.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from gur_spark.features.declare.spec import Window

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Slice:
    """One date's bands in windows that end on the same day."""

    as_of: date
    lag: int
    """Days from this date to the newest."""
    windows: tuple[int, ...]
    """Lengths in days, ascending."""
    starts: Ints
    """Band at which each window's part begins that shorter windows do not have, and where the longest ends; W + 1."""
    before: int = 0
    """Days from the windows' end to the date."""

    @property
    def days(self) -> list[slice]:
        """The days of each window."""
        end = self.lag + self.before
        return [slice(end, end + length) for length in self.windows]

    def by_window(self, values_UB: Any, ufunc: np.ufunc = np.add) -> Any:
        """Values per band -> values per part of a window, (U, W): window k is the parts 0..k together."""
        inside = values_UB[:, self.starts[0] : self.starts[-1]]
        if inside.shape[1] == len(self.windows):
            return inside
        return ufunc.reduceat(inside, self.starts[:-1] - self.starts[0], axis=1)

    def part_of_band(self, bands: int) -> Ints:
        """The part of each band; W for a band outside the date's windows."""
        part = np.searchsorted(self.starts, np.arange(bands), side="right") - 1
        return np.where(part < 0, len(self.windows), part)


@dataclass(frozen=True)
class Bands:
    """The bands of some as-of dates, ascending, with the same windows, ascending; the longest windows leave no gap."""

    dates: tuple[date, ...]
    windows: tuple[int, ...]
    more: tuple[Window, ...] = ()
    """Further windows: offset ones, others than the usual lengths, or without an end."""
    oldest: date | None = None
    """The first event's day, where a window has no end."""
    horizon: int = 0
    """Days after the newest date whose windows are runs of whole bands as well, once they are ``continued``."""
    base: "Bands | None" = None
    """The bands that these go on from."""

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
    ) -> "Bands":
        """Raises ValueError where the longest windows of two neighbouring dates leave days between them."""
        made = cls(tuple(sorted(set(dates))), tuple(windows), tuple(more), oldest, horizon)
        for earlier, later in pairwise(made.dates):
            if (later - earlier).days > made.windows[-1]:
                raise ValueError(f"the windows of {earlier} and {later} leave a gap: these are two passes")
        return made

    def continued(self, as_of: date, oldest: date | None = None) -> "Bands":
        """Those of one date at most ``horizon`` days later: of its windows alone, and one of the days before them.

        Each of these bands is inside one of those.

        ``oldest`` is the day of the first event that came since, where a window has no end.

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
        """Days from the first window's first day to the newest date."""
        return int(self._edges[-1])

    @cached_property
    def of_day(self) -> Ints:
        """The band of each day, (D,)."""
        return np.searchsorted(self._edges, np.arange(self.days), side="right") - 1

    @cached_property
    def lags(self) -> Ints:
        """Days from each date to the newest one."""
        return np.array([(self.newest - day).days for day in self.dates])

    @cached_property
    def reach(self) -> int:
        """Days before a date that its windows begin, at most; for a window without an end, all there are."""
        ends = [w.before + w.days for w in self.more if w.days is not None]
        return max(self.days if self._endless else 0, self.windows[-1], *ends)

    def slices(self) -> list[Slice]:
        """Each date's bands in the usual windows, oldest date first."""
        return [self._slice(number, self.windows) for number in range(len(self.dates))]

    def nested(self, number: int, windows: Sequence[Window]) -> list[tuple[Slice, dict[Window, int]]]:
        """The windows of the date of this number that end on the same day as one slice, in the order of their ends.

        With each slice, where in it each of its windows is: two of the same length (one of them without an end) are
        one there.
        """
        made = []
        for before in dict.fromkeys(w.before for w in windows):
            lengths = {w: self.length(number, w) for w in windows if w.before == before}
            different = sorted(set(lengths.values()))
            places = {w: different.index(length) for w, length in lengths.items()}
            made.append((self._slice(number, different, before), places))
        return made

    def length(self, number: int, window: Window) -> int:
        """Days of a window; one without an end begins with the first event."""
        return window.days or max(self.days - int(self.lags[number]) - window.before, 1)

    def _slice(self, number: int, lengths: Sequence[int], before: int = 0) -> Slice:
        lag = int(self.lags[number])
        starts = np.searchsorted(self._edges, lag + before + np.array([0, *lengths]))
        return Slice(self.dates[number], lag, tuple(lengths), starts, before)

    @cached_property
    def _endless(self) -> bool:
        return any(w.days is None for w in self.more)

    @cached_property
    def _edges(self) -> Ints:
        """Ages at which a band begins, and the end of the last."""
        edges = self._of_windows()
        if self.base is not None:
            edges.add(self.base.days + (self.newest - self.base.newest).days)
        if self._endless:
            assert self.oldest is not None  # whoever asks for such a window knows the first event
            edges.add(max(*edges, (self.newest - self.oldest).days))
        return np.array(sorted(edges))

    def _of_windows(self) -> set[int]:
        usual = [(0, length) for length in self.windows]
        ends = [(w.before, w.before + w.days) for w in self.more if w.days is not None]
        endless = [(w.before, w.before + 1) for w in self.more if w.days is None]
        edges = {int(lag) + edge for lag in self.lags for span in usual + ends + endless for edge in span}
        # So many days later, the same windows begin and end so many days nearer to these dates.
        return {max(edge - days, 0) for edge in edges for days in range(self.horizon + 1)}

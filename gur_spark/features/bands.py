"""Days cut into bands, so that each window of each as-of date is a run of whole bands.

An event is counted once, in its band; a date's windows are sums over runs of bands. One pass over the events
therefore serves any number of dates.

Legend: ages are days before the newest date (its eve is day 0), so later dates come first. D = days, B = bands,
W = windows of a date, U = users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Slice:
    """One date's bands."""

    as_of: date
    lag: int
    """Days from this date to the newest."""
    windows: tuple[int, ...]
    starts: Ints
    """Band at which each window's part begins that shorter windows do not have, and where the longest ends; W + 1."""

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

    def __len__(self) -> int:
        return len(self._edges) - 1

    @classmethod
    def of(cls, dates: Sequence[date], windows: Sequence[int]) -> "Bands":
        """Raises ValueError where the longest windows of two neighbouring dates leave days between them."""
        made = cls(tuple(sorted(set(dates))), tuple(windows))
        for earlier, later in pairwise(made.dates):
            if (later - earlier).days > made.windows[-1]:
                raise ValueError(f"the windows of {earlier} and {later} leave a gap: these are two passes")
        return made

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

    def slices(self) -> list[Slice]:
        """Each date's bands, oldest date first."""
        lengths = np.array([0, *self.windows])
        return [
            Slice(day, int(lag), self.windows, np.searchsorted(self._edges, lag + lengths))
            for day, lag in zip(self.dates, self.lags, strict=True)
        ]

    @cached_property
    def _edges(self) -> Ints:
        """Ages at which a band begins, and the end of the last."""
        return np.unique([lag + length for lag in self.lags for length in (0, *self.windows)])

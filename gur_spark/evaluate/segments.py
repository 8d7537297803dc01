"""Segments of users by their number of events. An embedding may be good on average and poor for inactive users."""

# N = users

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gur_spark.arrays import Ints, Mask

SEGMENTS = ("cold", "light", "heavy")

FEWEST = 30
"""Least number of test users of a segment in a report."""


@dataclass(frozen=True)
class Segments:
    """The segment of each user, one of ``SEGMENTS``."""

    bounds: tuple[int, int]
    """The fewest events, in the longest window, of a light user and of a heavy one."""
    index_N: Ints

    @classmethod
    def of(cls, events_N: Ints, bounds: tuple[int, int] | None) -> "Segments":
        """Split users by declared bounds, or by the terciles of the users with an event. A segment may be empty."""
        if bounds is None:
            active = events_N[events_N > 0]
            low, high = np.quantile(active, [1 / 3, 2 / 3], method="higher") if len(active) else (1, 2)
            bounds = int(low), int(high)
        return cls(bounds, np.searchsorted(bounds, events_N, side="right"))

    def members(self, *names: str) -> Mask:
        return np.isin(self.index_N, [SEGMENTS.index(name) for name in names])


def merged(users: Callable[[tuple[str, ...]], int]) -> dict[tuple[str, ...], int]:
    """Merge each segment of fewer than ``FEWEST`` users with its smaller neighbour; return the users of each.

    Nothing is left where only one segment would be: it is everyone.

    Args:
        users: a function that counts the users of some segments together.
    """
    found: list[tuple[tuple[str, ...], int]] = [((name,), users((name,))) for name in SEGMENTS]
    while len(found) > 1 and min(size for _, size in found) < FEWEST:
        place = min(range(len(found)), key=lambda n: found[n][1])
        beside = min((n for n in (place - 1, place + 1) if 0 <= n < len(found)), key=lambda n: found[n][1])
        first = min(place, beside)
        names = (*found[first][0], *found[first + 1][0])
        found[first : first + 2] = [(names, users(names))]
    return dict(found) if len(found) > 1 else {}


def meaning(of_dates: Sequence[Segments]) -> str:
    """Describe the segments; if their bounds differ between dates, at each date."""
    bounds = [segments.bounds for segments in of_dates]
    bounds = bounds[:1] if len(set(bounds)) == 1 else bounds
    told = [f"cold below {low}, light below {high}, heavy from {high} on" for low, high in bounds]
    dates = ", terciles of each date" if len(bounds) > 1 else ""
    return f"events in the longest window{dates}: {'; '.join(told)}"

"""Users by how much they did: an embedding that is good on average may know nothing of those who do little."""

# N = users

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SEGMENTS = ("cold", "light", "heavy")


@dataclass(frozen=True)
class Segments:
    """Which of ``SEGMENTS`` each user is in."""

    bounds: tuple[int, int]
    """Events in the longest window from which a user is light, and heavy."""
    index_N: npt.NDArray[np.int64]

    @classmethod
    def of(cls, events_N: npt.NDArray[np.int64], bounds: tuple[int, int] | None) -> "Segments":
        """By declared bounds, or by the terciles of the users with an event; a segment may have nobody."""
        if bounds is None:
            active = events_N[events_N > 0]
            low, high = np.quantile(active, [1 / 3, 2 / 3], method="higher") if len(active) else (1, 2)
            bounds = int(low), int(high)
        return cls(bounds, np.searchsorted(bounds, events_N, side="right"))

    def members(self, name: str) -> npt.NDArray[np.bool_]:
        return np.asarray(self.index_N == SEGMENTS.index(name))


def meaning(of_dates: Sequence[Segments]) -> str:
    """What the segments are, at each date where they are not the same at all of them."""
    bounds = [segments.bounds for segments in of_dates]
    bounds = bounds[:1] if len(set(bounds)) == 1 else bounds
    told = [f"cold below {low}, light below {high}, heavy from {high} on" for low, high in bounds]
    dates = ", terciles of each date" if len(bounds) > 1 else ""
    return f"events in the longest window{dates}: {'; '.join(told)}"

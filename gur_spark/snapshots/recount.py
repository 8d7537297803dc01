"""One number of a user, computed again in plain Python from the user's events, one at a time."""

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any

from gur_spark.features.declare.spec import NUMERIC_STATISTICS
from gur_spark.features.states.base import DAY_US
from gur_spark.schema import MISSING_ID

STATISTICS = (
    *("events", "active_days", "recency_days", "tenure_days", "distinct", "ids", "counts", "attribute"),
    *NUMERIC_STATISTICS,
)
"""Statistics of the manifest that ``Recount`` can compute."""


@dataclass
class Recount:
    """Running counts of one user's events. Memory grows with the different days and ids, not with the events."""

    start_us: int
    """Events of the window are older than this, in microseconds before as_of."""
    end_us: float
    """Events of the window are not older than this."""
    ids_end_us: float
    """Events of the window whose ids a histogram lists are not older than this."""
    categorical: bool
    several: bool = False
    """Whether the attribute is a set of categories, with one row per member."""
    events: int = 0
    days: set[int] = field(default_factory=set)
    first_us: int | None = None
    last_us: int | None = None
    ids: set[int] = field(default_factory=set)
    histogram: Counter[int] = field(default_factory=Counter)
    """Events in the feature's window per category id."""
    values: int = 0
    total: int = 0
    squares: int = 0
    least: int | None = None
    greatest: int | None = None
    newest: int | None = None
    """The value of the row that was taken last."""
    moment: tuple[int, date | None] | None = None
    members: set[int] = field(default_factory=set)
    """Ids in the rows of that moment and landing."""

    def add(self, age_us: int, value: int | None, landed_on: date | None = None) -> bool:
        """Take an event, and return whether it is in the feature's window."""
        if self.categorical and value is not None and age_us <= self.ids_end_us:
            self.ids.add(value)
        if not self.start_us < age_us <= self.end_us:
            return False
        self.events += 1
        self.days.add((age_us - 1) // DAY_US)
        self.last_us = age_us if self.last_us is None else min(self.last_us, age_us)
        self.first_us = age_us if self.first_us is None else max(self.first_us, age_us)
        if self.moment != (age_us, landed_on):
            self.moment, self.members = (age_us, landed_on), set()
        self.newest = value
        self.members |= set() if value in (None, MISSING_ID) else {value}
        if value is not None:
            if self.categorical:
                self.histogram[value] += 1
            self.values += 1
            self.total += value
            self.squares += value * value
            self.least = value if self.least is None else min(self.least, value)
            self.greatest = value if self.greatest is None else max(self.greatest, value)
        return True

    def value(self, statistic: str, step: Fraction) -> Any:
        """The value of a statistic of the manifest, in the field's unit; None where the manifest says null."""
        match statistic:
            case "events":
                return self.events
            case "active_days":
                return len(self.days)
            case "recency_days":
                return None if self.last_us is None else self.last_us / DAY_US
            case "tenure_days":
                return None if self.first_us is None else self.first_us / DAY_US
            case "distinct":
                return len(self.histogram)
            case "ids":
                return sorted(self.ids)
            case "counts":
                return [self.histogram[i] for i in sorted(self.ids)]
            case "attribute" if self.several:
                return sorted(self.members)
            case "attribute" if self.categorical:
                return MISSING_ID if self.newest is None else self.newest
            case "attribute":
                return None if self.newest is None else float(self.newest * step)
        return self._number(statistic, step)

    def _number(self, statistic: str, step: Fraction) -> Any:
        n, total = self.values, self.total
        if statistic == "count":
            return n
        if statistic == "sum":
            return float(total * step)
        if not n:
            return None
        exact = {"mean": Fraction(total, n), "min": Fraction(self.least or 0), "max": Fraction(self.greatest or 0)}
        if statistic == "std":
            return math.sqrt(Fraction(self.squares, n) - exact["mean"] ** 2) * float(step)
        return float(exact[statistic] * step)

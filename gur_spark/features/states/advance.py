"""From the bands of one date to those of a date some days later: what becomes of each array that a state keeps.

An array is counts of bands or of days, ages, or keys that end with a number of a band or a day: there are no others,
and a state says which its own are (``State.kept``). With that is said, too, how the arrays of two parts of the rows
become one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np

from gur_spark.features.states.tiles import Bands, Ints


@dataclass(frozen=True)
class Shift:
    """``new`` is ``old.continued(...)``: each band of ``old`` is inside one of its bands."""

    old: Bands
    new: Bands

    @cached_property
    def days(self) -> int:
        """Days between the two dates."""
        return (self.new.newest - self.old.newest).days

    @cached_property
    def band_of(self) -> Ints:
        """The new band of each old one."""
        first_day = np.searchsorted(self.old.of_day, np.arange(len(self.old)))
        return self.new.of_day[first_day + self.days]

    def bands(self, values: Any, fill: Any, together: np.ufunc) -> Any:
        """(G, B, ...) of the new bands, old ones that are one now put ``together``."""
        new, starts = np.unique(self.band_of, return_index=True)
        moved = np.full((len(values), len(self.new), *values.shape[2:]), fill, values.dtype)
        moved[:, new] = together.reduceat(values, starts, axis=1)
        return moved

    def day_columns(self, values: Any, fill: Any) -> Any:
        """(G, D) of the new days."""
        moved = np.full((len(values), self.new.days), fill, values.dtype)
        moved[:, self.days : self.days + values.shape[1]] = values
        return moved

    def ages(self, ages_us: Ints) -> Ints:
        """Microseconds to the new date."""
        return ages_us + timedelta(days=self.days) // timedelta(microseconds=1)

    def band_keys(self, keys: Ints) -> Ints:
        """Keys ``x * bands + band``, in the same order; some may be equal now."""
        x = keys // len(self.old)
        # Not divmod, which takes twice as long.
        band = keys - x * len(self.old)
        moved: Ints = x * len(self.new) + self.band_of[band]
        return moved

    def day_keys(self, keys: Ints) -> Ints:
        """Keys ``x * days + day``, in the same order."""
        return keys + keys // self.old.days * (self.new.days - self.old.days) + self.days


@dataclass(frozen=True)
class Kind:
    """What an array is of."""

    moved: Callable[[Any, Shift], Any]
    """Of an array of the old date, that of the new one."""
    together: np.ufunc | None = None
    """Where it has a row per group: of a group's rows in two arrays, that of all its events."""


Kept = Mapping[str, Kind]
"""The arrays of a state by name, and what each is of."""


def per_band(fill: Any = 0, together: np.ufunc = np.add) -> Kind:
    """Of bands, (G, B, ...): one without events holds ``fill``, and several are one by ``together``."""
    return Kind(lambda values, shift: shift.bands(values, fill, together), together)


def per_day(fill: Any, together: np.ufunc) -> Kind:
    """Of days, (G, D)."""
    return Kind(lambda values, shift: shift.day_columns(values, fill), together)


def age_per_band(fill: int, together: np.ufunc) -> Kind:
    """Ages in microseconds of bands, (G, B)."""
    return Kind(lambda values, shift: shift.bands(shift.ages(values), fill, together), together)


age = Kind(lambda values, shift: shift.ages(values))
"""Ages in microseconds, of events."""

band_key = Kind(lambda values, shift: shift.band_keys(values))
"""Keys that end with a band."""

day_key = Kind(lambda values, shift: shift.day_keys(values))
"""Keys that end with a day."""

unmoved = Kind(lambda values, shift: values)
"""Counts, values and groups, which no date is in."""

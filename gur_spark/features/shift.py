"""From the bands of one date to those of a date some days later: what becomes of each array that a state keeps.

An array is counts of bands or of days, ages, or keys that end with a number of a band or a day: there are no others,
and a state says which its own are (``State.kept``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np

from gur_spark.features.bands import Bands, Ints


@dataclass(frozen=True)
class Shift:
    """``new`` is ``old.continued(...)``: a band for each day between, the old ones, and perhaps one older than they."""

    old: Bands
    new: Bands

    @cached_property
    def days(self) -> int:
        """Days between the two dates, each a band of its own."""
        return (self.new.newest - self.old.newest).days

    def bands(self, values: Any, fill: Any) -> Any:
        """(G, B, ...) with the new bands."""
        return _widened(values, self.days, len(self.new), fill)

    def day_columns(self, values: Any, fill: Any) -> Any:
        """(G, D) with the new days."""
        return _widened(values, self.days, self.new.days, fill)

    def ages(self, ages_us: Ints) -> Ints:
        """Microseconds to the new date."""
        return ages_us + timedelta(days=self.days) // timedelta(microseconds=1)

    def band_keys(self, keys: Ints) -> Ints:
        """Keys ``x * bands + band``, in the same order."""
        return self._keys(keys, len(self.old), len(self.new))

    def day_keys(self, keys: Ints) -> Ints:
        """Keys ``x * days + day``, in the same order."""
        return self._keys(keys, self.old.days, self.new.days)

    def _keys(self, keys: Ints, before: int, after: int) -> Ints:
        # Not divmod, which takes twice as long: the remainder moves with the key.
        return keys + (keys // before) * (after - before) + self.days


def _widened(values: Any, young: int, width: int, fill: Any) -> Any:
    """The array ``width`` wide, its own columns behind ``young`` filled ones."""
    wide = np.full((len(values), width, *values.shape[2:]), fill, values.dtype)
    wide[:, young : young + values.shape[1]] = values
    return wide


Move = Callable[[Any, Shift], Any]
"""Of an array of the old date, that of the new one."""

Kept = Mapping[str, Move]
"""The arrays of a state by name, and what becomes of each."""


def per_band(fill: Any = 0) -> Move:
    """Of bands, (G, B, ...); a band without events holds ``fill``."""
    return lambda values, shift: shift.bands(values, fill)


def per_day(fill: Any = 0) -> Move:
    """Of days, (G, D)."""
    return lambda values, shift: shift.day_columns(values, fill)


def age_per_band(fill: int) -> Move:
    """Ages in microseconds of bands, (G, B)."""
    return lambda values, shift: shift.bands(shift.ages(values), fill)


def age(values: Any, shift: Shift) -> Any:
    """Ages in microseconds, of events."""
    return shift.ages(values)


def band_key(values: Any, shift: Shift) -> Any:
    """Keys that end with a band."""
    return shift.band_keys(values)


def day_key(values: Any, shift: Shift) -> Any:
    """Keys that end with a day."""
    return shift.day_keys(values)


def unmoved(values: Any, shift: Shift) -> Any:
    """Counts, values and groups, which no date is in."""
    return values

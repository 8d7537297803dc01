"""Rules for the arrays of a state: how each moves to a later date, and how two of them are combined.

A snapshot's state is stored with the tiles of its date and loaded with the tiles of a later date. Each array of a state
has one rule, by the axis or the numbers that depend on the date: values per tile, values per day, ages, or keys that
end with the number of a tile or of a unit. ``State.stored`` names the rule of each array.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.states.tiles import Tiles


@dataclass(frozen=True)
class Advance:
    """The step from the tiles of one date to those of a later date.

    ``new`` is ``old.advanced(...)``, so each old tile lies inside one new tile.
    """

    old: Tiles
    new: Tiles

    @cached_property
    def days(self) -> int:
        """Days between the two dates."""
        return (self.new.newest - self.old.newest).days

    @cached_property
    def units(self) -> int:
        """Units of the tiles, days or hours, between the two dates."""
        return self.days * self.new.day_units

    @cached_property
    def tile_of(self) -> Ints:
        """The new tile of each old one."""
        first_unit = np.searchsorted(self.old.of_unit, np.arange(len(self.old)))
        return self.new.of_unit[first_unit + self.units]

    def tiles(self, values: Any, fill: Any, combine: np.ufunc) -> Any:
        """Values per new tile, (G, B, ...). Old tiles that became one are combined, and new ones hold ``fill``."""
        new, starts = np.unique(self.tile_of, return_index=True)
        moved = np.full((len(values), len(self.new), *values.shape[2:]), fill, values.dtype)
        moved[:, new] = combine.reduceat(values, starts, axis=1)
        return moved

    def day_columns(self, values: Any, fill: Any) -> Any:
        """Values per day of the new tiles, (G, D); new days hold ``fill``."""
        moved = np.full((len(values), self.new.days), fill, values.dtype)
        moved[:, self.days : self.days + values.shape[1]] = values
        return moved

    def ages(self, ages_us: Ints) -> Ints:
        """Microseconds from each event to the new date."""
        return ages_us + timedelta(days=self.days) // timedelta(microseconds=1)

    def tile_keys(self, keys: Ints) -> Ints:
        """Keys ``x * tiles + tile`` with the new tiles. The order stays, and different keys may become equal."""
        x = keys // len(self.old)
        # Not divmod, which takes twice as long.
        tile = keys - x * len(self.old)
        moved: Ints = x * len(self.new) + self.tile_of[tile]
        return moved

    def unit_keys(self, keys: Ints) -> Ints:
        """Keys ``x * units + unit`` with the new units. The order stays."""
        return keys + keys // self.old.units * (self.new.units - self.old.units) + self.units


@dataclass(frozen=True)
class ArrayRule:
    """How one array of a state moves to a later date, and how two of them are combined."""

    advance: Callable[[Any, Advance], Any]
    """Makes the array of the later date from the array of the earlier date."""
    combine: np.ufunc | None = None
    """Combines a group's rows of two arrays; only for arrays that have one row per group."""


ArrayRules = Mapping[str, ArrayRule]
"""Name of each array of a state -> its rule."""


def per_tile(fill: Any = 0, combine: np.ufunc = np.add) -> ArrayRule:
    """Rule for values per tile, (G, B, ...), where a tile without events holds ``fill``."""
    return ArrayRule(lambda values, step: step.tiles(values, fill, combine), combine)


def per_day(fill: Any, combine: np.ufunc) -> ArrayRule:
    """Rule for values per day, (G, D), where a day without events holds ``fill``."""
    return ArrayRule(lambda values, step: step.day_columns(values, fill), combine)


def age_per_tile(fill: int, combine: np.ufunc) -> ArrayRule:
    """Rule for one age in microseconds per tile, (G, B)."""
    return ArrayRule(lambda values, step: step.tiles(step.ages(values), fill, combine), combine)


age = ArrayRule(lambda values, step: step.ages(values))
"""Rule for ages of single events, in microseconds."""

tile_key = ArrayRule(lambda values, step: step.tile_keys(values))
"""Rule for keys that end with the number of a tile."""

unit_key = ArrayRule(lambda values, step: step.unit_keys(values))
"""Rule for keys that end with the number of a unit, a day or an hour."""

unmoved = ArrayRule(lambda values, step: values)
"""Rule for counts, values and groups, which do not depend on the date."""

"""Operations on a numeric field. Values are whole steps until the last division."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gur_spark.features.declare.spec import Parameter
from gur_spark.features.operations.base import Operation, OutputColumn, lists, operation
from gur_spark.features.states.base import ValueColumn
from gur_spark.features.states.counts import Counts
from gur_spark.features.states.daily import DailyTotals, DaySums
from gur_spark.features.states.numbers import Numbers, NumericState
from gur_spark.features.states.sketches import Buckets
from gur_spark.features.states.tallies import Bins, Powers, PowerSums, Signs
from gur_spark.features.states.tiles import DateWindows

Columns = list[tuple[pa.Array, ...]]


class _Numeric(Operation):
    field_kinds = ("numeric",)
    meaning: str
    unit = "{value}"

    def outputs(self) -> Sequence[OutputColumn]:
        return [OutputColumn(name=self.name, unit=self.unit, meaning=self.meaning)]


class _Statistic(_Numeric):
    state = NumericState

    def finalize(self, values: Numbers, windows: DateWindows) -> Columns:
        empty_GW = values.count_GW == 0
        found_GW = self.statistic(values, np.maximum(values.count_GW, 1))
        return [(pa.array(x_G, mask=e_G),) for x_G, e_G in zip(found_GW.T, empty_GW.T, strict=True)]

    def statistic(self, values: Numbers, n_GW: Any) -> Any:
        """The statistic per group and window, (G, W).

        Args:
            n_GW: the count, or 1 where it is 0.
        """
        raise NotImplementedError


@operation
class Count(_Numeric):
    name, state = "count", NumericState

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "events with a {field} {within}"
        return [OutputColumn(name="count", dtype="long", unit="events", meaning=meaning, null="never")]

    def finalize(self, values: Numbers, windows: DateWindows) -> Columns:
        return [(pa.array(n_G),) for n_G in values.count_GW.T]


@operation
class Sum(_Numeric):
    name, state = "sum", NumericState

    def outputs(self) -> Sequence[OutputColumn]:
        return [OutputColumn(name="sum", unit="{value}", meaning="sum of {value} {within}", null="never")]

    def finalize(self, values: Numbers, windows: DateWindows) -> Columns:
        return [(pa.array(x_G),) for x_G in self.value.units(values.sum_GW).T]


@operation
class Mean(_Statistic):
    name, meaning = "mean", "mean of {value} {within}"

    def statistic(self, values: Numbers, n_GW: Any) -> Any:
        return self.value.units(values.sum_GW, n_GW)


@operation
class Std(_Statistic):
    name, meaning = "std", "population standard deviation of {value} {within}"

    def statistic(self, values: Numbers, n_GW: Any) -> Any:
        return self.value.units(values.std_GW, n_GW)


@operation
class Min(_Statistic):
    name, meaning = "min", "least {value} {within}"

    def statistic(self, values: Numbers, n_GW: Any) -> Any:
        return self.value.units(values.min_GW)


@operation
class Max(_Statistic):
    name, meaning = "max", "greatest {value} {within}"

    def statistic(self, values: Numbers, n_GW: Any) -> Any:
        return self.value.units(values.max_GW)


@operation
class Range(_Statistic):
    name, meaning = "range", "greatest less least {value} {within}"

    def statistic(self, values: Numbers, n_GW: Any) -> Any:
        there = values.count_GW > 0
        return self.value.units(np.where(there, values.max_GW, 0) - np.where(there, values.min_GW, 0))


class _Moment(_Numeric):
    state, unit = PowerSums, ""

    def outputs(self) -> Sequence[OutputColumn]:
        return [OutputColumn(name=self.name, unit="", meaning=self.meaning, null="no two different {field}")]

    def finalize(self, values: Powers, windows: DateWindows) -> Columns:
        flat_GW = values.spread_GW == 0
        found_GW = self.moment(values, np.where(flat_GW, 1, values.spread_GW))
        return [(pa.array(x_G, mask=f_G),) for x_G, f_G in zip(found_GW.T, flat_GW.T, strict=True)]

    def moment(self, values: Powers, spread_GW: Any) -> Any:
        """The moment per group and window, (G, W), from whole numbers that are divided once.

        Args:
            spread_GW: n^2 times the variance; never 0.
        """
        raise NotImplementedError


@operation
class Skew(_Moment):
    """Third central moment over the 1.5th power of the variance: Fisher's g1 of the population."""

    name, meaning = "skew", "skewness of {value} {within}"

    def moment(self, values: Powers, spread_GW: Any) -> Any:
        return values.skew_GW.astype(np.float64) / spread_GW.astype(np.float64) ** 1.5


@operation
class Kurtosis(_Moment):
    """Fourth central moment over the square of the variance, minus 3: Fisher's g2 of the population."""

    name, meaning = "kurtosis", "excess kurtosis of {value} {within}"

    def moment(self, values: Powers, spread_GW: Any) -> Any:
        excess = values.kurtosis_GW - 3 * values.spread_GW**2
        return excess.astype(np.float64) / spread_GW.astype(np.float64) ** 2


class _Share(_Numeric):
    state, unit = Signs, "share"
    sign: int

    def finalize(self, values: Any, windows: DateWindows) -> Columns:
        n_GW = values.sum(axis=2)
        share_GW = values[:, :, self.sign] / np.maximum(n_GW, 1)
        return [(pa.array(x_G, mask=n_G == 0),) for x_G, n_G in zip(share_GW.T, n_GW.T, strict=True)]


@operation
class ShareNegative(_Share):
    name, sign, meaning = "share_negative", 0, "share of {value} below zero {within}"


@operation
class ShareZero(_Share):
    name, sign, meaning = "share_zero", 1, "share of {value} equal to zero {within}"


@operation
class BinCounts(Operation):
    """``{bins: [0, 10, 100]}``: number of values below 0, from 0 to below 10, from 10 to below 100, and from 100 on."""

    name, field_kinds, state, one_number = "bins", ("numeric",), Bins, False

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        if not isinstance(parameter, tuple) or list(parameter) != sorted(set(parameter)) or not parameter:
            raise ValueError(f"takes ascending edges such as [0, 10, 100], got {parameter!r}")
        self._edges = parameter

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = f"events {{within}} with {{value}} below, between and from each of {list(self._edges)} on"
        return [OutputColumn(name="bins", dtype="array<int>", unit="events", meaning=meaning, null="never")]

    def options(self) -> tuple[Any, ...]:
        return (self._edges,)

    def finalize(self, values: Any, windows: DateWindows) -> Columns:
        groups, number, classes = values.shape
        offsets = np.arange(groups + 1) * classes
        return [(lists(offsets, values[:, w].reshape(-1).astype(np.int32)),) for w in range(number)]


@operation
class Quantiles(Operation):
    """``{quantiles: [0.5, 0.9]}``: value at rank floor(q (n - 1)), with a relative error of 1 %; see ``Buckets``."""

    name, field_kinds, state = "quantiles", ("numeric",), Buckets

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        if not isinstance(parameter, tuple) or not parameter or not all(0 <= q <= 1 for q in parameter):
            raise ValueError(f"takes shares from 0 to 1 such as [0.5, 0.9], got {parameter!r}")
        self._shares = parameter

    def outputs(self) -> Sequence[OutputColumn]:
        return [
            OutputColumn(
                name=f"p{100 * q:g}".replace(".", "_"),
                unit="{value}",
                meaning=f"{q:g} quantile of {{value}} {{within}}, to 1 % of itself",
            )
            for q in self._shares
        ]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        columns = []
        for window in range(len(windows.lengths)):
            found = [Buckets.quantiles(values, window, float(q)) for q in self._shares]
            columns.append(tuple(pa.array(self.value.units(Buckets.steps(ids)), mask=empty) for ids, empty in found))
        return columns


@operation
class DecayedSum(_Numeric):
    """``{decayed_sum: 14}``: sum in which a day counts half as much as the day 14 days later."""

    name, state = "decayed_sum", DaySums

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        if not isinstance(parameter, int | float) or not 0 < parameter <= 3650:
            raise ValueError(f"takes a half-life in days such as 14, got {parameter!r}")
        self._half_life = float(parameter)

    def outputs(self) -> Sequence[OutputColumn]:
        name = f"decayed_sum_{self._half_life:g}".replace(".", "_")
        meaning = f"sum of {{value}} {{within}}, each day's weight halved every {self._half_life:g} days"
        return [OutputColumn(name=name, unit="{value}", meaning=meaning, null="never")]

    def finalize(self, values: DailyTotals, windows: DateWindows) -> Columns:
        return [(pa.array(self.value.units(x_G)),) for x_G in values.decayed(self._half_life).T]

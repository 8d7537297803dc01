"""States for declared features: events per class, sums of powers, sums per day, and sketches of known error.

Legend of array shapes: N = rows, G = groups, B = bands, W = windows of a slice, K = classes (or registers).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np

from gur_spark.features.bands import Bands, Slice
from gur_spark.features.exact import exact_sums, overflow
from gur_spark.features.groups import Groups, Ints, Rows, as_numpy
from gur_spark.features.shift import Kept, day_key, per_band, unmoved
from gur_spark.features.states import Counts, Histogram, Source, State, grown, refuse
from gur_spark.schema import MAX_STEPS


class ClassCounts(State):
    """Events per class (a sign, a bin, an hour), dense."""

    kept: ClassVar[Kept] = {"count_GBK": per_band()}

    def __init__(self, groups: Groups, bands: Bands, source: Source, classes: int) -> None:
        super().__init__(groups, bands, source)
        self.per_group = 8 * classes
        self.count_GBK = np.zeros((0, len(bands), classes), np.int64)

    @abstractmethod
    def classes(self, rows: Rows) -> Ints:
        """The class of each row, which has a value, from 0 to K - 1."""

    def _add(self, rows: Rows) -> None:
        rows = rows.present(str(self.source.column))
        slot_N = rows.slot_N * self.count_GBK.shape[2] + self.classes(rows)
        self.count_GBK += np.bincount(slot_N, minlength=self.count_GBK.size).reshape(self.count_GBK.shape)

    def _view(self, of: Slice) -> Ints:
        """Events per window and class, (G, W, K)."""
        return np.cumsum(of.by_window(self.count_GBK), axis=1)

    def _grow(self) -> None:
        self.count_GBK = grown(self.count_GBK, len(self.groups), 0)


class Signs(ClassCounts):
    """Values below, equal to and above zero."""

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source, 3)

    def classes(self, rows: Rows) -> Ints:
        return np.sign(as_numpy(rows.table[self.source.column])) + 1


class Bins(ClassCounts):
    """Values between declared edges: class k holds edge k-1 <= value < edge k."""

    def __init__(self, groups: Groups, bands: Bands, source: Source, edges: Sequence[float]) -> None:
        super().__init__(groups, bands, source, len(edges) + 1)
        assert source.numeric is not None
        # The first step that is not below the edge: compared as whole numbers.
        exact = [Fraction(str(edge)) / Fraction(source.numeric.step) for edge in edges]
        self._edges = np.array([min(max(-(-edge // 1), -MAX_STEPS), MAX_STEPS + 1) for edge in exact], np.int64)

    def classes(self, rows: Rows) -> Ints:
        return np.searchsorted(self._edges, as_numpy(rows.table[self.source.column]), side="right")


class Clock(ClassCounts):
    """Hours of the day or days of the week, as the rows say."""

    def classes(self, rows: Rows) -> Ints:
        return as_numpy(rows.table[self.source.column])


@dataclass(frozen=True)
class Powers:
    """Count and sums of x, x^2, x^3 and x^4 in the windows of a slice: Python's whole numbers, (G, W)."""

    count_GW: Any
    sums: tuple[Any, ...]

    @cached_property
    def spread_GW(self) -> Any:
        """n^2 times the variance."""
        s1, s2, *_ = self.sums
        return self.count_GW * s2 - s1**2

    @cached_property
    def skew_GW(self) -> Any:
        """n^3 times the third central moment."""
        n, (s1, s2, s3, _) = self.count_GW, self.sums
        return n * n * s3 - 3 * n * s1 * s2 + 2 * s1**3

    @cached_property
    def kurtosis_GW(self) -> Any:
        """n^4 times the fourth central moment."""
        n, (s1, s2, s3, s4) = self.count_GW, self.sums
        return n**3 * s4 - 4 * n * n * s1 * s3 + 6 * n * s1 * s1 * s2 - 3 * s1**4


class PowerSums(State):
    """Sums of powers up to the fourth, exact for every stored number.

    A power is cut into limbs of 22 bits, each of which is summed for itself: 2^22 times 2^40 events fit.
    """

    _BITS = 22
    _LIMBS = (2, 4, 6, 8)
    per_group = 8 * (1 + sum(_LIMBS))
    kept: ClassVar[Kept] = {"_sum_GBK": per_band()}

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self._sum_GBK = np.zeros((0, len(bands), 1 + sum(self._LIMBS)), np.int64)

    def _add(self, rows: Rows) -> None:
        rows = rows.present(str(self.source.column))
        slots = self._sum_GBK.shape[0] * self._sum_GBK.shape[1]
        sum_SK = self._sum_GBK.reshape(slots, -1)
        sum_SK[:, 0] += np.bincount(rows.slot_N, minlength=slots)
        x_N = as_numpy(rows.table[self.source.column])
        x = [np.abs(x_N) & self._mask, np.abs(x_N) >> self._BITS]
        power, place = x, 1
        for exponent, limbs in enumerate(self._LIMBS, 1):
            power = x if exponent == 1 else self._times(power, x)
            for limb_N in power:
                if limb_N.any():
                    signed_N = limb_N * np.sign(x_N) if exponent % 2 else limb_N
                    # Below 2^22 times the rows of a chunk: exact as floats.
                    sum_SK[:, place] += np.bincount(rows.slot_N, signed_N, minlength=slots).astype(np.int64)
                place += 1
            assert len(power) == limbs

    def _view(self, of: Slice) -> Powers:
        sum_GWK = np.cumsum(of.by_window(self._sum_GBK), axis=1).astype(object)
        sums, place = [], 1
        for limbs in self._LIMBS:
            sums.append(sum(sum_GWK[..., place + k] * (1 << (self._BITS * k)) for k in range(limbs)))
            place += limbs
        return Powers(sum_GWK[..., 0], tuple(sums))

    def _grow(self) -> None:
        self._sum_GBK = grown(self._sum_GBK, len(self.groups), 0)

    @property
    def _mask(self) -> int:
        return (1 << self._BITS) - 1

    def _times(self, a: list[Ints], b: list[Ints]) -> list[Ints]:
        """The product of two numbers in limbs, with every limb below 2^22 again."""
        out = [np.zeros(len(b[0]), np.int64) for _ in range(len(a) + len(b))]
        for i, x_N in enumerate(a):
            for j, y_N in enumerate(b):
                out[i + j] += x_N * y_N
        for k in range(len(out) - 1):
            out[k + 1] += out[k] >> self._BITS
            out[k] &= self._mask
        return out


class DaySums(State):
    """The sum of a number per group and day, sparse."""

    per_event = 16
    kept: ClassVar[Kept] = {"_keys": day_key, "_sums": unmoved}

    def __init__(self, groups: Groups, bands: Bands, source: Source) -> None:
        super().__init__(groups, bands, source)
        self._keys, self._sums = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def _add(self, rows: Rows) -> None:
        rows = rows.present(str(self.source.column))
        if not len(rows.slot_N):
            return
        key_N = rows.group_N * self.bands.days + rows.day_N
        keys, place_N, counts = np.unique(key_N, return_inverse=True, return_counts=True)
        sums = exact_sums(place_N, as_numpy(rows.table[self.source.column]), counts)
        both = np.concatenate([self._keys, keys])
        self._keys, place = np.unique(both, return_inverse=True)
        held = np.zeros(len(self._keys), np.int64)
        held[place[: len(self._sums)]] = self._sums
        added = np.zeros(len(self._keys), np.int64)
        added[place[len(self._sums) :]] = sums
        beyond = overflow(held, added)
        if beyond is not None:
            refuse(self.source, self.groups.name(int(self._keys[beyond]) // self.bands.days))
        self._sums = held + added

    def _view(self, of: Slice) -> "DailyTotals":
        group_N, day_N = np.divmod(self._keys, self.bands.days)
        return DailyTotals(of, group_N, day_N, self._sums, len(self.groups))


@dataclass(frozen=True)
class DailyTotals:
    """Sums per group and day, in the order of both."""

    of: Slice
    group_N: Ints
    day_N: Ints
    sum_N: Ints
    groups: int

    def decayed(self, half_life: float) -> Any:
        """Per window, the sum with each day's weight: 1 for the last day, a half ``half_life`` days before, (G, W)."""
        columns = []
        for days in self.of.days:
            inside_N = (self.day_N >= days.start) & (self.day_N < days.stop)
            # The eve of the date is day 0. One after the other, from the last day on: the same sum every time.
            weight_D = np.array([2.0 ** (-day / half_life) for day in range(days.stop - self.of.lag)])
            weighted_N = self.sum_N[inside_N] * weight_D[self.day_N[inside_N] - self.of.lag]
            columns.append(np.bincount(self.group_N[inside_N], weighted_N, minlength=self.groups))
        return np.stack(columns, axis=1)


QUANTILE_ERROR = Fraction(1, 100)


@cache
def bucket_edges() -> Ints:
    """The greatest whole number of each bucket: floor(g^i), with g = (1 + error) / (1 - error)."""
    edges = []
    with localcontext() as context:
        context.prec = 60
        growth = Decimal(101) / Decimal(99)
        edge = Decimal(1)
        while edge < MAX_STEPS:
            edges.append(int(edge))
            edge *= growth
        edges.append(int(edge))
    return np.array(edges, np.int64)


class Buckets(Histogram):
    """Events per bucket of a logarithmic scale: DDSketch (Masson, Rim and Lee 2019, VLDB), relative error 1 %.

    Buckets are cut in whole steps, so the sketch of a set of values is always the same, and sketches add up.
    """

    def ids(self, rows: Rows) -> tuple[Rows, Ints]:
        rows = rows.present(str(self.source.column))
        x_N = as_numpy(rows.table[self.source.column])
        edges = bucket_edges()
        # Ascending with the value: below zero mirrored, zero in the middle.
        distance_N = np.where(x_N == 0, 0, 1 + np.searchsorted(edges, np.abs(x_N), side="left"))
        return rows, len(edges) + 1 + np.sign(x_N) * distance_N

    @staticmethod
    def steps(ids: Any) -> Any:
        """The value in a bucket's middle, in steps."""
        edges = bucket_edges()
        growth = 101 / 99
        distance = ids.astype(np.int64) - (len(edges) + 1)
        middle = 2.0 * growth ** (np.abs(distance) - 1.0) / (growth + 1.0)
        return np.where(distance == 0, 0.0, np.sign(distance) * middle)

    @staticmethod
    def quantiles(counts: Counts, window: int, share: float) -> tuple[Any, Any]:
        """The id at rank floor(share * (n - 1)) of each group's values, and where a group has none."""
        count_P = counts.count_WP[window].astype(np.int64)
        n_G = counts.total_G(count_P)
        before_P = np.append(0, np.cumsum(count_P))
        rank_G = np.floor(share * np.maximum(n_G - 1, 0)).astype(np.int64)
        place_G = np.searchsorted(before_P[1:], before_P[counts.offsets[:-1]] + rank_G, side="right")
        empty_G = n_G == 0
        padded_P = np.append(counts.ids_P, 0)
        return padded_P[np.where(empty_G, len(padded_P) - 1, place_G)], empty_G


class Registers(State):
    """HyperLogLog (Flajolet et al. 2007) over hashes of 31 bits, with 2^bits registers."""

    HASH_BITS = 31
    kept: ClassVar[Kept] = {"_rank_GBK": per_band(0, np.maximum)}

    def __init__(self, groups: Groups, bands: Bands, source: Source, bits: int) -> None:
        super().__init__(groups, bands, source)
        self._bits = bits
        self.per_group = 1 << bits
        self._rank_GBK = np.zeros((0, len(bands), 1 << bits), np.uint8)

    def _add(self, rows: Rows) -> None:
        hash_N = as_numpy(rows.table[self.source.column])
        register_N, rest_N = hash_N & ((1 << self._bits) - 1), hash_N >> self._bits
        # frexp gives the length in bits, exactly for numbers of this size.
        rank_N = self.HASH_BITS - self._bits - np.frexp(rest_N.astype(np.float64))[1] + 1
        slot_N = (rows.slot_N << self._bits) | register_N
        np.maximum.at(self._rank_GBK.reshape(-1), slot_N, rank_N.astype(np.uint8))

    def _view(self, of: Slice) -> Any:
        """The estimates, (G, W)."""
        rank_GWK = np.maximum.accumulate(of.by_window(self._rank_GBK, np.maximum), axis=1)
        size = 1 << self._bits
        # Sums of powers of two above 2^-32: exact, so the order of registers does not matter.
        raw_GW = _bias(size) * size * size / np.ldexp(1.0, -rank_GWK.astype(np.int32)).sum(axis=2)
        zeros_GW = (rank_GWK == 0).sum(axis=2)
        small_GW = size * np.log(size / np.maximum(zeros_GW, 1))
        return np.rint(np.where((raw_GW <= 2.5 * size) & (zeros_GW > 0), small_GW, raw_GW)).astype(np.int64)

    def _grow(self) -> None:
        self._rank_GBK = grown(self._rank_GBK, len(self.groups), 0)


def _bias(size: int) -> float:
    return {16: 0.673, 32: 0.697, 64: 0.709}.get(size, 0.7213 / (1 + 1.079 / size))

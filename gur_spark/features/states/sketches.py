"""Mergeable sketches with a known error: quantiles by DDSketch in whole steps, distinct values by HyperLogLog.

Legend of array shapes: N = rows, G = groups, B = tiles, W = windows of a date, K = registers, P = (group, id) pairs.
"""

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any, ClassVar

import numpy as np

from gur_spark.arrays import Ints
from gur_spark.features.states.advance import ArrayRules, per_tile
from gur_spark.features.states.base import State, ValueColumn, grown
from gur_spark.features.states.counts import Counts, Histogram
from gur_spark.features.states.groups import Groups, PlacedRows, as_numpy
from gur_spark.features.states.tiles import DateWindows, Tiles
from gur_spark.schema import MAX_STEPS

QUANTILE_ERROR = Fraction(1, 100)


@cache
def bucket_edges() -> Ints:
    """Greatest whole number of each bucket: floor(g^i), with g = (1 + error) / (1 - error)."""
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
    """Number of events per bucket of a logarithmic scale: DDSketch with a relative error of 1 %.

    Buckets end at whole steps, so the same values always give the same sketch, and sketches can be added.
    Source: Masson, Rim and Lee, VLDB 2019.
    """

    def ids(self, rows: PlacedRows) -> tuple[PlacedRows, Ints]:
        rows = rows.present(str(self.value.column))
        x_N = as_numpy(rows.table[self.value.column])
        edges = bucket_edges()
        # Ids ascend with the value: negative values are mirrored, and zero is in the middle.
        distance_N = np.where(x_N == 0, 0, 1 + np.searchsorted(edges, np.abs(x_N), side="left"))
        return rows, len(edges) + 1 + np.sign(x_N) * distance_N

    @staticmethod
    def steps(ids: Any) -> Any:
        """Value in the middle of a bucket, in steps."""
        edges = bucket_edges()
        growth = 101 / 99
        distance = ids.astype(np.int64) - (len(edges) + 1)
        middle = 2.0 * growth ** (np.abs(distance) - 1.0) / (growth + 1.0)
        return np.where(distance == 0, 0.0, np.sign(distance) * middle)

    @staticmethod
    def quantiles(counts: Counts, window: int, share: float) -> tuple[Any, Any]:
        """Bucket at rank floor(share * (n - 1)) of each group's values, and a mask of groups without values."""
        count_P = counts.count_WP[window].astype(np.int64)
        n_G = counts.total_G(count_P)
        before_P = np.append(0, np.cumsum(count_P))
        rank_G = np.floor(share * np.maximum(n_G - 1, 0)).astype(np.int64)
        place_G = np.searchsorted(before_P[1:], before_P[counts.offsets[:-1]] + rank_G, side="right")
        empty_G = n_G == 0
        padded_P = np.append(counts.ids_P, 0)
        return padded_P[np.where(empty_G, len(padded_P) - 1, place_G)], empty_G


class Registers(State):
    """HyperLogLog over hashes of 31 bits, with 2^bits registers. Source: Flajolet et al. 2007."""

    HASH_BITS = 31
    stored: ClassVar[ArrayRules] = {"_rank_GBK": per_tile(0, np.maximum)}

    def __init__(self, groups: Groups, tiles: Tiles, value: ValueColumn, bits: int) -> None:
        super().__init__(groups, tiles, value)
        self._bits = bits
        self.per_group = 1 << bits
        self._rank_GBK = np.zeros((0, len(tiles), 1 << bits), np.uint8)

    def _add(self, rows: PlacedRows) -> None:
        hash_N = as_numpy(rows.table[self.value.column])
        register_N, rest_N = hash_N & ((1 << self._bits) - 1), hash_N >> self._bits
        # frexp gives the length in bits, exactly for numbers of this size.
        rank_N = self.HASH_BITS - self._bits - np.frexp(rest_N.astype(np.float64))[1] + 1
        slot_N = (rows.slot_N << self._bits) | register_N
        np.maximum.at(self._rank_GBK.reshape(-1), slot_N, rank_N.astype(np.uint8))

    def _view(self, windows: DateWindows) -> Any:
        """Estimated number of distinct values, (G, W)."""
        rank_GWK = np.maximum.accumulate(windows.by_part(self._rank_GBK, np.maximum), axis=1)
        size = 1 << self._bits
        # A sum of powers of two above 2^-32 is exact, so the order of registers does not matter.
        raw_GW = _bias(size) * size * size / np.ldexp(1.0, -rank_GWK.astype(np.int32)).sum(axis=2)
        zeros_GW = (rank_GWK == 0).sum(axis=2)
        small_GW = size * np.log(size / np.maximum(zeros_GW, 1))
        return np.rint(np.where((raw_GW <= 2.5 * size) & (zeros_GW > 0), small_GW, raw_GW)).astype(np.int64)

    def _grow(self) -> None:
        self._rank_GBK = grown(self._rank_GBK, len(self.groups), 0)


def _bias(size: int) -> float:
    return {16: 0.673, 32: 0.697, 64: 0.709}.get(size, 0.7213 / (1 + 1.079 / size))

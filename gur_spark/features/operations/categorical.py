"""Operations on a categorical field. Ids are those of the vocabulary: 1 is rare or unknown, 2 is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gur_spark.features.declare.manifest import ID_UNIT
from gur_spark.features.declare.spec import Parameter, Window
from gur_spark.features.operations.base import Derived, Operation, Output, lists, operation, whole
from gur_spark.features.states.base import Source
from gur_spark.features.states.counts import Counts, Histogram
from gur_spark.features.states.sketches import Registers
from gur_spark.features.states.tiles import Slice

Columns = list[tuple[pa.Array, ...]]


class _OfCounts(Operation):
    of, state = ("categorical",), Histogram


@operation
class Distinct(_OfCounts):
    name = "distinct"

    def outputs(self) -> Sequence[Output]:
        return [
            Output(name="distinct", dtype="long", unit="ids", meaning="different {field} ids {within}", null="never")
        ]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        return [(pa.array(values.total_G(count_P > 0)),) for count_P in values.count_WP]


@operation
class Ids(_OfCounts):
    """The ids that ``histogram`` counts."""

    name, single, once = "ids", False, True

    def outputs(self) -> Sequence[Output]:
        meaning = "{field} ids {within}, ascending"
        return [Output(name="ids", dtype="array<int>", unit="vocabulary ids", meaning=meaning, null="never")]

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """The longest alone; the counts of every window stand beside the same ids."""
        if any(w.before for w in windows):
            raise ValueError("takes windows that end at as_of")
        return [max(windows, key=lambda w: w.days or 1 << 30)]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        return [(lists(values.offsets, values.ids_P),)] * len(of.windows)


@operation
class HistogramCounts(_OfCounts):
    """Events per id of ``ids``; the two are declared together."""

    name, single = "histogram", False

    def outputs(self) -> Sequence[Output]:
        meaning = "events per id of {subject}_ids {within}"
        return [Output(name="counts", dtype="array<int>", unit="events", meaning=meaning, null="never")]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        return [(lists(values.offsets, count_P),) for count_P in values.count_WP]


@operation
class TopK(_OfCounts):
    """``{top_k: 3}``: the ids with most events, and how many; of equal ones the smaller id."""

    name, single = "top_k", False

    def __init__(self, source: Source, parameter: Parameter | None = None) -> None:
        super().__init__(source)
        self._k = whole(parameter, 1, 1000)

    def outputs(self) -> Sequence[Output]:
        return [
            Output(
                name=f"top_{self._k}",
                dtype="array<int>",
                unit="vocabulary ids",
                meaning=f"the {self._k} {{field}} ids with most events {{within}}, most first",
                null="never",
            ),
            Output(
                name=f"top_{self._k}_counts",
                dtype="array<int>",
                unit="events",
                meaning=f"events of each id of {{subject}}_top_{self._k} {{within}}",
                null="never",
            ),
        ]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        columns = []
        for count_P in values.count_WP:
            order = np.lexsort((-count_P, values.group_P))
            order = order[count_P[order] > 0]
            group = values.group_P[order]
            first_G = np.searchsorted(group, np.arange(values.groups))
            kept = order[np.arange(len(order)) - first_G[group] < self._k]
            sizes_G = np.bincount(values.group_P[kept], minlength=values.groups)
            offsets = np.append(0, np.cumsum(sizes_G))
            columns.append((lists(offsets, values.ids_P[kept]), lists(offsets, count_P[kept])))
        return columns


@operation
class Mode(_OfCounts):
    """The id with most events; of equal ones the smallest."""

    name, single = "mode", False

    def outputs(self) -> Sequence[Output]:
        return [
            Output(
                name="mode",
                dtype="long",
                unit=ID_UNIT,
                meaning="the {field} id with most events {within}",
                null="no event",
            )
        ]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        columns = []
        for count_P in values.count_WP:
            place_G, most_G = _most(values, count_P)
            ids_P = np.append(values.ids_P, 0).astype(np.int64)
            columns.append((pa.array(ids_P[place_G], mask=most_G == 0),))
        return columns


@operation
class ModeShare(_OfCounts):
    name = "mode_share"

    def outputs(self) -> Sequence[Output]:
        meaning = "share of the most frequent {field} id {within}"
        return [Output(name="mode_share", unit="share", meaning=meaning, null="no event")]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        columns = []
        for count_P in values.count_WP:
            _, most_G = _most(values, count_P)
            n_G = values.total_G(count_P.astype(np.int64))
            columns.append((pa.array(most_G / np.maximum(n_G, 1), mask=n_G == 0),))
        return columns


@operation
class Entropy(_OfCounts):
    """-sum(p ln p) = ln n - sum(c ln c) / n."""

    name = "entropy"

    def outputs(self) -> Sequence[Output]:
        meaning = "entropy of the {field} ids {within}"
        return [Output(name="entropy", unit="nats", meaning=meaning, null="no event")]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        columns = []
        for count_P in values.count_WP:
            different, place_P = np.unique(count_P, return_inverse=True)
            # numpy's logarithm depends on the machine's vector units, Python's does not; few counts are different.
            terms = np.array([c * math.log(c) if c else 0.0 for c in different.tolist()])
            sum_G = np.bincount(values.group_P, terms[place_P], minlength=values.groups)
            n_G = values.total_G(count_P.astype(np.int64))
            totals, place_G = np.unique(np.maximum(n_G, 1), return_inverse=True)
            logs = np.array([math.log(n) for n in totals.tolist()])
            entropy_G = np.maximum(logs[place_G] - sum_G / np.maximum(n_G, 1), 0.0)
            columns.append((pa.array(entropy_G, mask=n_G == 0),))
        return columns


@operation
class New(_OfCounts):
    """Ids of a window that were in no earlier part of the longest one."""

    name = "new"

    def outputs(self) -> Sequence[Output]:
        meaning = "{field} ids {within} that the longest window has nowhere else"
        return [Output(name="new", dtype="long", unit="ids", meaning=meaning, null="never")]

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """All but the longest."""
        if any(w.before for w in windows) or len(windows) < 2:
            raise ValueError("takes two windows or more, which end at as_of")
        longest = max(windows, key=lambda w: w.days or 1 << 30)
        return [w for w in windows if w != longest]

    def finalize(self, values: Counts, of: Slice) -> Columns:
        all_P = values.count_WP[-1]
        return [(pa.array(values.total_G((count_P == all_P) & (all_P > 0))),) for count_P in values.count_WP]


@operation
class ApproxDistinct(Operation):
    """``{approx_distinct: 8}``: values, rare ones too, by 2^8 registers; the standard error is 1.04 / sqrt(2^8)."""

    name, of, state = "approx_distinct", ("categorical",), Registers

    def __init__(self, source: Source, parameter: Parameter | None = None) -> None:
        super().__init__(source)
        self._bits = 8 if parameter is None else whole(parameter, 4, 12)

    def outputs(self) -> Sequence[Output]:
        meaning = f"different values of {{field}} {{within}}, about: standard error {1.04 / 2 ** (self._bits / 2):.1%}"
        return [Output(name="approx_distinct", dtype="long", unit="values", meaning=meaning, null="never")]

    def derived(self) -> Mapping[str, Derived]:
        size = 1 << Registers.HASH_BITS
        return {
            f"_hash_{self.source.column}": Derived(f"pmod(xxhash64({self.source.column}), {size})", Registers.HASH_BITS)
        }

    def options(self) -> tuple[Any, ...]:
        return (self._bits,)

    def finalize(self, values: Any, of: Slice) -> Columns:
        return [(pa.array(estimate_G),) for estimate_G in values.T]


def _most(values: Counts, count_P: Any) -> tuple[Any, Any]:
    """Of each group, the place of the pair with most events (the first of equals) and how many it has."""
    order = np.lexsort((-count_P, values.group_P))
    there_G = np.diff(values.offsets) > 0
    place_G = np.full(values.groups, len(count_P))
    place_G[there_G] = order[values.offsets[:-1][there_G]]
    return place_G, np.append(count_P, 0)[place_G].astype(np.int64)

"""Operations on a categorical field. Ids are the vocabulary's: 1 is rare or unknown, 2 is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gur_spark.features.declare.manifest import ID_UNIT
from gur_spark.features.declare.spec import Parameter
from gur_spark.features.declare.windows import Window, longest
from gur_spark.features.operations.base import Derived, Operation, OutputColumn, lists, operation, whole
from gur_spark.features.states.base import ValueColumn
from gur_spark.features.states.counts import Counts, Histogram
from gur_spark.features.states.sketches import Registers
from gur_spark.features.states.tiles import DateWindows

Columns = list[tuple[pa.Array, ...]]


class _OfCounts(Operation):
    field_kinds, state = ("categorical",), Histogram


@operation
class Distinct(_OfCounts):
    name = "distinct"

    def outputs(self) -> Sequence[OutputColumn]:
        return [
            OutputColumn(
                name="distinct", dtype="long", unit="ids", meaning="different {field} ids {within}", null="never"
            )
        ]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        return [(pa.array(values.total_G(count_P > 0)),) for count_P in values.count_WP]


@operation
class Ids(_OfCounts):
    """Ids that ``histogram`` counts the events of."""

    name, one_number, one_column = "ids", False, True

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "{field} ids {within}, ascending"
        return [OutputColumn(name="ids", dtype="array<int>", unit="vocabulary ids", meaning=meaning, null="never")]

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """The longest window alone, because the counts of every window stand beside the same ids."""
        if any(w.gap for w in windows):
            raise ValueError("takes windows that end at as_of")
        return [longest(windows)]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        return [(lists(values.offsets, values.ids_P),)] * len(windows.lengths)


@operation
class HistogramCounts(_OfCounts):
    """Number of events per id of ``ids``. The plan adds ``ids`` where only ``histogram`` is declared."""

    name, one_number = "histogram", False

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "events per id of {subject}_ids {within}"
        return [OutputColumn(name="counts", dtype="array<int>", unit="events", meaning=meaning, null="never")]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        return [(lists(values.offsets, count_P),) for count_P in values.count_WP]


@operation
class TopK(_OfCounts):
    """``{top_k: 3}``: the ids with most events, and their numbers of events; among equals the smaller id first."""

    name, one_number = "top_k", False

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        self._k = whole(parameter, 1, 1000)

    def outputs(self) -> Sequence[OutputColumn]:
        return [
            OutputColumn(
                name=f"top_{self._k}",
                dtype="array<int>",
                unit="vocabulary ids",
                meaning=f"the {self._k} {{field}} ids with most events {{within}}, most first",
                null="never",
            ),
            OutputColumn(
                name=f"top_{self._k}_counts",
                dtype="array<int>",
                unit="events",
                meaning=f"events of each id of {{subject}}_top_{self._k} {{within}}",
                null="never",
            ),
        ]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
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
    """The id with most events, the smallest among equals."""

    name, one_number = "mode", False

    def outputs(self) -> Sequence[OutputColumn]:
        return [
            OutputColumn(
                name="mode",
                dtype="long",
                unit=ID_UNIT,
                meaning="the {field} id with most events {within}",
                null="no event",
            )
        ]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        columns = []
        for count_P in values.count_WP:
            place_G, most_G = _most(values, count_P)
            ids_P = np.append(values.ids_P, 0).astype(np.int64)
            columns.append((pa.array(ids_P[place_G], mask=most_G == 0),))
        return columns


@operation
class ModeShare(_OfCounts):
    name = "mode_share"

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "share of the most frequent {field} id {within}"
        return [OutputColumn(name="mode_share", unit="share", meaning=meaning, null="no event")]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        columns = []
        for count_P in values.count_WP:
            _, most_G = _most(values, count_P)
            n_G = values.total_G(count_P.astype(np.int64))
            columns.append((pa.array(most_G / np.maximum(n_G, 1), mask=n_G == 0),))
        return columns


@operation
class Entropy(_OfCounts):
    """Entropy in nats: -sum(p ln p) = ln n - sum(c ln c) / n, with counts c, their sum n and shares p = c / n."""

    name = "entropy"

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "entropy of the {field} ids {within}"
        return [OutputColumn(name="entropy", unit="nats", meaning=meaning, null="no event")]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        columns = []
        for count_P in values.count_WP:
            different, place_P = np.unique(count_P, return_inverse=True)
            # numpy's logarithm depends on the machine's vector units, Python's does not. Few counts are different.
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
    """Number of ids in a window that the rest of the longest window does not have."""

    name = "new"

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "{field} ids {within} that the longest window has nowhere else"
        return [OutputColumn(name="new", dtype="long", unit="ids", meaning=meaning, null="never")]

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """All windows but the longest."""
        if any(w.gap for w in windows) or len(windows) < 2:
            raise ValueError("takes two windows or more, which end at as_of")
        return [w for w in windows if w != longest(windows)]

    def finalize(self, values: Counts, windows: DateWindows) -> Columns:
        all_P = values.count_WP[-1]
        return [(pa.array(values.total_G((count_P == all_P) & (all_P > 0))),) for count_P in values.count_WP]


@operation
class ApproxDistinct(Operation):
    """``{approx_distinct: 8}``: estimated number of values, rare ones too, with 2^8 registers.

    The standard error is 1.04 / sqrt(2^8).
    """

    name, field_kinds, state = "approx_distinct", ("categorical",), Registers

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        self._bits = 8 if parameter is None else whole(parameter, 4, 12)

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = f"different values of {{field}} {{within}}, about: standard error {1.04 / 2 ** (self._bits / 2):.1%}"
        return [OutputColumn(name="approx_distinct", dtype="long", unit="values", meaning=meaning, null="never")]

    def derived(self) -> Mapping[str, Derived]:
        size = 1 << Registers.HASH_BITS
        return {
            f"_hash_{self.value.column}": Derived(f"pmod(xxhash64({self.value.column}), {size})", Registers.HASH_BITS)
        }

    def options(self) -> tuple[Any, ...]:
        return (self._bits,)

    def finalize(self, values: Any, windows: DateWindows) -> Columns:
        return [(pa.array(estimate_G),) for estimate_G in values.T]


def _most(values: Counts, count_P: Any) -> tuple[Any, Any]:
    """Place of each group's pair with most events, the first among equals, and its number of events."""
    order = np.lexsort((-count_P, values.group_P))
    there_G = np.diff(values.offsets) > 0
    place_G = np.full(values.groups, len(count_P))
    place_G[there_G] = order[values.offsets[:-1][there_G]]
    return place_G, np.append(count_P, 0)[place_G].astype(np.int64)

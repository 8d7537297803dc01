"""Drift of aggregates: each feature of a snapshot against that of a reference.

For every column that a model reads, the distribution of its values is compared, in quantile bins of the reference or
over ids, and its share of nulls. A histogram or a set counts as a user's shares of ids, where each member of a set has
the same share, so all users have the same weight. Other lists are not measured. Both sides are samples of a few
thousand rows in memory.

Legend of array shapes: N = users of a sample, P = (user, id) pairs, V = ids, B = bins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gur_spark.arrays import Array, Ints
from gur_spark.features.declare.manifest import Column, Manifest
from gur_spark.monitoring.findings import Measurement
from gur_spark.schema import MISSING_ID, UNKNOWN_ID
from gur_spark.statistics.measures import FEWEST, bin_edges, in_bins, number_of_bins, psi

MOST_IDS = 50
"""Greatest number of the reference's ids with a bin of their own, beside unknown and missing ones."""

OTHERS = "others"
"""Bin of all other ids."""


@dataclass(frozen=True)
class Distribution:
    """Users of both sides in the bins of a column."""

    column: str
    field: str | None
    """Categorical field whose ids the bins are; None where they are ranges of numbers."""
    bins: tuple[str | int, ...]
    """Ranges as text, or ids and ``OTHERS``."""
    before_B: Array
    """Number of users, or sum of their shares, in each bin."""
    after_B: Array
    before_null: float
    """Share of users without a value."""
    after_null: float
    before_unknown: float = 0.0
    """Share of values that the reference's vocabulary does not have."""
    after_unknown: float = 0.0

    def measured(self, reference: str) -> Iterator[Measurement]:
        """Change of the share of nulls, rise of unknown categories, and PSI where both sides have enough users."""
        values = {"null_share": abs(self.after_null - self.before_null)}
        if min(self.before_B.sum(), self.after_B.sum()) >= FEWEST:
            values["psi"] = psi(self.before_B, self.after_B)
        if self.field is not None:
            values["new_share"] = max(self.after_unknown - self.before_unknown, 0.0)
        for measure, value in values.items():
            yield Measurement(kind="feature", subject=self.column, measure=measure, value=value, reference=reference)


@dataclass(frozen=True)
class IdShares:
    """Ids of a column on one side, each with its share of the user's values: the shares of a user add up to 1."""

    ids_P: Ints
    shares_P: Array
    users: int
    filled: int
    """Number of users with an id."""

    @property
    def null(self) -> float:
        """Share of users without an id."""
        return 1 - self.filled / max(self.users, 1)

    def by_id(self, size: int) -> Array:
        """Sum of the shares of each id, (V,)."""
        return np.bincount(self.ids_P, self.shares_P, minlength=size).astype(np.float64)

    def unknown(self, size: float) -> float:
        """Share of values that a vocabulary of this size does not have."""
        unknown_P = (self.ids_P == UNKNOWN_ID) | (self.ids_P >= size)
        return float(self.shares_P[unknown_P].sum()) / max(self.filled, 1)


def compare(before: pa.Table, after: pa.Table, manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[Distribution]:
    """Distribution of every measured column.

    Args:
        before, after: rows of the reference and of the snapshot, with the columns of ``measured_columns``.
        sizes: categorical field -> greatest id + 1 in the reference's vocabulary; empty where both sides have the same.
    """
    sides = (before, after)
    for column in manifest.dense:
        yield of_numbers(column.name, *(_numbers(side, column.name) for side in sides))
    read = {"ids": _single, "sets": shares_of_lists, "counts": _counted}
    columns = {"ids": manifest.ids, "sets": manifest.sets, "counts": _histograms(manifest)}
    for form, of_form in columns.items():
        for column in of_form:
            field = column.field or column.name
            yield of_ids(column.name, field, sizes, *(read[form](side, column.name) for side in sides))


def measured_columns(manifest: Manifest) -> list[str]:
    """Columns that ``compare`` reads."""
    histograms = [column.name for column in _histograms(manifest)]
    ids = dict.fromkeys(map(_ids_of, histograms))
    return [*(c.name for c in (*manifest.dense, *manifest.ids, *manifest.sets)), *ids, *histograms]


def _histograms(manifest: Manifest) -> list[Column]:
    return [column for column in manifest.columns if column.statistic == "counts"]


def _ids_of(histogram: str) -> str:
    """Column with the ids that a histogram counts: ``mcc_ids`` for ``mcc_counts_30d``."""
    return histogram.rpartition("_counts_")[0] + "_ids"


def of_numbers(name: str, before_N: Array, after_N: Array) -> Distribution:
    """Distribution of a number per user, NaN where a user has none, in quantile bins of the reference."""
    values = [side[~np.isnan(side)] for side in (before_N, after_N)]
    null = [1 - len(found) / max(len(side), 1) for found, side in zip(values, (before_N, after_N), strict=True)]
    if not len(values[0]):
        return Distribution(name, None, ("no value before",), np.zeros(1), np.array([float(len(values[1]))]), *null)
    edges = bin_edges(values[0], len(values[1]))
    counts = [in_bins(side, edges) for side in values]
    return Distribution(name, None, _ranges(edges), counts[0], counts[1], *null)


def _ranges(edges: Array) -> tuple[str, ...]:
    """Names of bins: the number that a bin ends with, or the only number that it holds."""

    def name(low: float, high: float) -> str:
        if np.nextafter(low, np.inf) == high:
            return f"{high:.3g}"
        if high == np.inf:
            return f"> {low:.3g}"
        after = np.nextafter(high, np.inf) + 0.0  # never -0
        return f"< {after:.3g}" if after in edges else f"≤ {high:.3g}"

    return tuple(name(low, high) for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True))


def of_ids(name: str, field: str, sizes: Mapping[str, int], before: IdShares, after: IdShares) -> Distribution:
    """Distribution of users' shares over the most frequent ids of the reference."""
    size = sizes.get(field, np.inf)
    height = 1 + max((int(side.ids_P.max()) for side in (before, after) if len(side.ids_P)), default=0)
    before_V, after_V = (side.by_id(max(height, MISSING_ID + 1)) for side in (before, after))
    own = _own_bins(before_V, min(before.filled, after.filled))
    bins = [np.append(side[own], side.sum() - side[own].sum()) for side in (before_V, after_V)]
    unknown = (before.unknown(size), after.unknown(size))
    names = (*own.tolist(), OTHERS)
    return Distribution(name, field, names, bins[0], bins[1], before.null, after.null, *unknown)


def _own_bins(before_V: Array, users: int) -> Ints:
    """Ids with a bin of their own: unknown, missing, and the most frequent ones; among equals the smaller ones."""
    special = [UNKNOWN_ID, MISSING_ID]
    order = np.argsort(-before_V, kind="stable")
    frequent = order[(before_V[order] > 0) & ~np.isin(order, special)]
    return np.concatenate([special, frequent[: number_of_bins(users, MOST_IDS)]]).astype(np.int64)


def _numbers(rows: pa.Table, name: str) -> Array:
    """Values of a column, NaN where they are null."""
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def _single(rows: pa.Table, name: str) -> IdShares:
    ids_P = rows[name].drop_null().to_numpy().astype(np.int64)
    return IdShares(ids_P, np.ones(len(ids_P)), len(rows), len(ids_P))


def shares_of_lists(rows: pa.Table, name: str) -> IdShares:
    """Ids of a list per user, such as a set; each entry has an equal share of the user's list."""
    sets = rows[name].combine_chunks()
    size_N = sets.value_lengths().fill_null(0).to_numpy()
    ids_P = sets.flatten().to_numpy().astype(np.int64)
    return IdShares(ids_P, 1 / np.repeat(size_N, size_N), len(rows), int((size_N > 0).sum()))


def _counted(rows: pa.Table, name: str) -> IdShares:
    """Ids of a histogram with their shares of the user's events, without ids that have no event."""
    ids, counts = (rows[n].combine_chunks() for n in (_ids_of(name), name))
    count_P = counts.flatten().to_numpy().astype(np.float64)
    user_P = np.repeat(np.arange(len(rows)), counts.value_lengths().to_numpy())
    total_N = np.bincount(user_P, count_P, minlength=len(rows))
    there_P = count_P > 0
    shares_P = count_P[there_P] / total_N[user_P[there_P]]
    ids_P = ids.flatten().to_numpy()[there_P].astype(np.int64)
    return IdShares(ids_P, shares_P, len(rows), int((total_N > 0).sum()))
